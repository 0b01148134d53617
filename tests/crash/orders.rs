//! What is asked for: requests over several connections, of mixed sizes, with contacts that nobody asked for before.

use std::sync::Arc;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::world::{BATCH, CRM, Contact, DOOR, Kind, LISTS, PORTAL, SALES, Seeded, World};

/// One request for a deletion.
#[derive(Debug)]
pub(crate) struct Order {
    /// Its place among what was told.
    pub(crate) n: usize,
    pub(crate) body: String,
    /// Whether the body has one contact a line.
    pub(crate) lines: bool,
    /// Without one, a request whose answer was lost is not repeated.
    pub(crate) key: Option<String>,
    /// Whether an answer is wanted before the end.
    pub(crate) respond_async: bool,
    /// Whether the caller that is not answered before the end looks until it is there.
    pub(crate) followed: bool,
    pub(crate) items: Vec<Item>,
}

/// One contact as it stands in a request.
#[derive(Debug)]
pub(crate) enum Item {
    Fresh(Contact),
    /// The same as an earlier one.
    Twin(usize),
    /// No dialect takes it.
    Hostile,
}

/// How orders are made.
pub(crate) struct Maker {
    rng: Rng,
    made: usize,
    largest: usize,
    /// Whether some have no key.
    keyless: bool,
    /// Whether most callers wait for nothing.
    hurried: bool,
    name: String,
}

impl Maker {
    /// Orders of up to `largest` contacts. `name` is what all keys begin with.
    pub(crate) fn new(rng: Rng, largest: usize, name: &str) -> Self {
        Self { rng, made: 0, largest, keyless: false, hurried: false, name: name.to_owned() }
    }

    /// Some orders have no key.
    pub(crate) fn keyless(self) -> Self {
        Self { keyless: true, ..self }
    }

    /// Most callers want their answer at once and look no more.
    pub(crate) fn hurried(self) -> Self {
        Self { hurried: true, ..self }
    }

    /// Numbers them from here.
    pub(crate) fn from(self, n: usize) -> Self {
        Self { made: n, ..self }
    }

    pub(crate) fn order(&mut self, world: &World) -> Arc<Order> {
        let most = [3, 20, self.largest][self.rng.usize(..3)].min(self.largest);
        let size = self.rng.usize(1..=most);
        let items = (0..size).map(|n| self.item(world, n)).collect();
        self.with(world, items, false)
    }

    /// The same in lines, which no caller waits for.
    #[allow(dead_code, reason = "the simulation asks for them")]
    pub(crate) fn lines(&mut self, world: &World) -> Arc<Order> {
        let items = (0..self.rng.usize(1..=self.largest)).map(|n| self.item(world, n)).collect();
        let order = Arc::into_inner(self.with(world, items, true)).unwrap();
        Arc::new(Order { respond_async: true, ..order })
    }

    /// Three native ids at one connection and two phones at another, all there.
    pub(crate) fn small(&mut self, world: &World) -> Arc<Order> {
        let ids = (0..3).map(|_| world.contact(CRM, Kind::Id, Seeded::There));
        let phones = (0..2).map(|_| world.contact(LISTS, Kind::Phone, Seeded::There));
        let items = ids.chain(phones).map(Item::Fresh).collect();
        let order = Arc::into_inner(self.with(world, items, false)).unwrap();
        Arc::new(Order { respond_async: false, key: Some(format!("{}-{}", self.name, order.n)), ..order })
    }

    /// So many contacts in lines, which no caller waits for: most at the one connection that takes many in a call.
    pub(crate) fn large(&mut self, world: &World, size: usize) -> Arc<Order> {
        let item = |n: usize| match n % 200 {
            50 => self.item(world, n),
            100 => Item::Fresh(world.contact(LISTS, Kind::Phone, Seeded::There)),
            150 => Item::Fresh(world.contact(BATCH, Kind::Phone, Seeded::There)),
            _ => Item::Fresh(world.contact(CRM, Kind::Id, Seeded::There)),
        };
        let items = (0..size).map(item).collect();
        let order = Arc::into_inner(self.with(world, items, true)).unwrap();
        let key = Some(format!("{}-{}", self.name, order.n));
        Arc::new(Order { respond_async: true, followed: true, key, ..order })
    }

    /// So many native ids at one connection, with a key, which no caller waits for.
    pub(crate) fn ids(&mut self, world: &World, link: usize, size: usize) -> Arc<Order> {
        let items = (0..size).map(|_| Item::Fresh(world.contact(link, Kind::Id, Seeded::There))).collect();
        let order = Arc::into_inner(self.with(world, items, false)).unwrap();
        let key = Some(format!("{}-{}", self.name, order.n));
        Arc::new(Order { respond_async: true, key, ..order })
    }

    fn with(&mut self, world: &World, items: Vec<Item>, lines: bool) -> Arc<Order> {
        // A twin of a twin is a twin of the first.
        let mut contacts: Vec<Value> = Vec::with_capacity(items.len());
        for (n, item) in items.iter().enumerate() {
            let mut contact = match item {
                Item::Fresh(contact) => written(world, contact),
                Item::Twin(first) => contacts[*first].clone(),
                Item::Hostile => json!({ "id": "../no id", "connection": "crm" }),
            };
            contact["ref"] = format!("row-{n}").into();
            contacts.push(contact);
        }
        let n = self.made;
        self.made += 1;
        let body = match lines {
            true => contacts.iter().map(|contact| format!("{contact}\n")).collect(),
            false => json!({ "contacts": contacts, "reference": format!("DSR-{n}") }).to_string(),
        };
        let key = (!self.keyless || self.rng.u8(..10) > 0).then(|| format!("{}-{n}", self.name));
        let respond_async = self.rng.u8(..10) < if self.hurried { 8 } else { 4 };
        let followed = !self.hurried && self.rng.bool();
        Arc::new(Order { n, body, lines, key, respond_async, followed, items })
    }

    fn item(&mut self, world: &World, n: usize) -> Item {
        let rng = &mut self.rng;
        let seeded = match rng.u8(..20) {
            0..15 => Seeded::There,
            15..17 => Seeded::Held,
            _ => Seeded::Missing,
        };
        let (link, kind) = match rng.u8(..100) {
            // The first is always fresh, and so every twin has one that stands for it.
            0..2 if n > 0 => return Item::Twin(0),
            2 if n > 0 => return Item::Hostile,
            3..15 if world.links.len() > PORTAL => (PORTAL, Kind::Id),
            15..25 if world.links.len() > DOOR => (DOOR, Kind::Id),
            0..50 => (CRM, Kind::Id),
            50..68 => (SALES, Kind::Id),
            68..76 => (LISTS, Kind::Id),
            76..84 => (LISTS, Kind::Phone),
            84..88 => (LISTS, Kind::External),
            88..96 => (BATCH, Kind::Phone),
            _ => (BATCH, Kind::External),
        };
        // There, a contact that is refused leaves all of its call unknown, which says little.
        let seeded = if link == BATCH && rng.u8(..20) > 0 { Seeded::There } else { seeded };
        Item::Fresh(world.contact(link, kind, seeded))
    }
}

fn written(world: &World, contact: &Contact) -> Value {
    use adapters::Identifier::{External, Id, Phone};
    let mut json = match &contact.identifier {
        Id(id) => json!({ "id": id.to_string() }),
        Phone(phone) => json!({ "phone": phone.to_string() }),
        External { provider, id } => {
            json!({ "external": { "provider": provider.to_string(), "id": id.to_string() } })
        }
    };
    json["connection"] = world.links[contact.link].name.into();
    json
}
