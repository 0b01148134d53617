//! What the gateway told its callers: every acknowledgement, and every result that was once seen settled.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;
use tokio::sync::watch;

use crate::Wrong;
use crate::orders::Order;

/// A random moment is so far at most behind an acknowledgement.
const A_LITTLE_US: u64 = 40_000;
/// And comes by then.
const AT_LAST: Duration = Duration::from_secs(2);

/// All that was told, and what contradicts it.
#[derive(Default)]
pub(crate) struct Told {
    memory: Mutex<Memory>,
    /// Acknowledgements so far, repeated ones too.
    heard: watch::Sender<usize>,
}

#[derive(Default)]
struct Memory {
    orders: BTreeMap<usize, Memo>,
    wrong: Vec<Wrong>,
}

/// How much was known of a deletion when a request was sent: answers may come in another order than they were made.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    settled: usize,
    finished: bool,
}

/// What was told about one order.
pub(crate) struct Memo {
    pub(crate) order: Arc<Order>,
    /// The deletion's id, once it was acknowledged.
    pub(crate) id: Option<String>,
    /// Whether somebody may have had it cancelled.
    pub(crate) cancelled: bool,
    /// The results as they were first seen settled.
    settled: BTreeMap<usize, Value>,
    /// The whole deletion as it was first seen finished.
    pub(crate) finished: Option<Value>,
}

impl Told {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap()
    }

    /// Puts down that this is about to be asked for.
    pub(crate) fn asked(&self, order: &Arc<Order>) {
        let (settled, order_of) = (BTreeMap::new(), Arc::clone(order));
        let memo = Memo { order: order_of, id: None, cancelled: false, settled, finished: None };
        self.memory().orders.entry(order.n).or_insert(memo);
    }

    /// Puts down that this is about to be cancelled.
    pub(crate) fn cancelling(&self, order: usize) {
        self.memory().orders.get_mut(&order).unwrap().cancelled = true;
    }

    /// What is known now: no answer to a request that is sent from now on may know less.
    pub(crate) fn known(&self, order: usize) -> Known {
        let memory = self.memory();
        let memo = &memory.orders[&order];
        Known { settled: memo.settled.len(), finished: memo.finished.is_some() }
    }

    /// Puts down an answer to a request or to a look; `status` is 0 for a look. `before` was known when it was sent.
    pub(crate) fn heard(&self, order: usize, before: Known, status: u16, json: &Value) {
        if status != 0 {
            self.heard.send_modify(|count| *count += 1);
        }
        let mut memory = self.memory();
        let Memory { orders, wrong } = &mut *memory;
        let memo = orders.get_mut(&order).unwrap();
        let mut object = |what: String| wrong.push(format!("order {order} ({}): {what}", name(memo.id.as_deref())));
        let Some(id) = json["id"].as_str() else { return object(format!("an answer without an id: {json}")) };
        match &memo.id {
            Some(known) if known != id => return object(format!("one key, and a second deletion {id}")),
            _ => memo.id = Some(id.to_owned()),
        }
        // An answer to a body of lines tells nothing of its contacts.
        let is_whole = json["results"].is_array();
        let results = json["results"].as_array().map_or(&[][..], Vec::as_slice);
        for (n, result) in results.iter().enumerate().filter(|(_, result)| result["outcome"] != "pending") {
            let mut result = result.clone();
            if !result["duplicate_of"].is_null() {
                // A duplicate is what its twin is, and that may settle later.
                result["absent"].take();
            }
            let first = memo.settled.entry(n).or_insert_with(|| result.clone());
            if *first != result {
                wrong.push(format!("{id}: a settled result changed from {first} to {result}"));
            }
        }
        if json["state"] == "finished" && !is_whole {
            return;
        }
        if json["state"] == "finished" {
            let first = memo.finished.get_or_insert_with(|| json.clone());
            if first != json {
                wrong.push(format!("{id}: a finished deletion changed"));
            }
            let absent = results.iter().all(|result| result["absent"] == true);
            if (status == 200 && !absent) || (status == 207 && absent) {
                wrong.push(format!("{id}: finished, and answered with {status}"));
            }
        } else if [200, 207].contains(&status) || before.finished {
            wrong.push(format!("{id}: state {} where it must be finished", json["state"]));
        }
        let settled = results.iter().filter(|result| result["outcome"] != "pending").count();
        if settled < before.settled && !results.is_empty() {
            wrong.push(format!("{id}: {settled} settled results where {} were seen before", before.settled));
        }
    }

    /// A random moment under load: after so many more acknowledgements at most, and a little while.
    pub(crate) async fn moment(&self, rng: &mut Rng, most: usize) {
        let (more, us) = (rng.usize(..=most), rng.u64(..A_LITTLE_US));
        let mut heard = self.heard.subscribe();
        let until = *heard.borrow() + more;
        // It need not come: what is hurt so late is hurt all the same.
        let _ = tokio::time::timeout(AT_LAST, heard.wait_for(|count| *count >= until)).await;
        tokio::time::sleep(Duration::from_micros(us)).await;
    }

    /// Puts down something that is wrong in itself.
    pub(crate) fn object(&self, wrong: Wrong) {
        self.memory().wrong.push(wrong);
    }

    /// What is wrong so far.
    pub(crate) fn wrong(&self) -> Vec<Wrong> {
        self.memory().wrong.clone()
    }

    /// The acknowledged deletions: order, id, and whether they were seen finished.
    pub(crate) fn acknowledged(&self) -> Vec<(usize, String, bool)> {
        let memory = self.memory();
        let known = memory.orders.iter().filter_map(|(n, memo)| Some((*n, memo.id.clone()?, memo.finished.is_some())));
        known.collect()
    }

    /// Whether a deletion was seen finished.
    pub(crate) fn is_finished(&self, order: usize) -> bool {
        self.memory().orders[&order].finished.is_some()
    }

    /// Calls this for everything that was asked for.
    pub(crate) fn each(&self, look: impl FnMut(&Memo)) {
        self.memory().orders.values().for_each(look);
    }
}

fn name(id: Option<&str>) -> &str {
    id.unwrap_or("not acknowledged")
}
