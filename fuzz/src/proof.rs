//! What must stand in a reply before a contact may be called deleted or not found, after the vendors' pages.
//!
//! Necessary, not sufficient: a dialect may ask for more. Nothing here is taken from the dialects' own code.

use adapters::{Call, Identifier, IdentifierKind};
use bytes::Bytes;
use http::Response;

use crate::tree::Tree;

/// A reply with its body read.
pub struct Reply<'r> {
    status: u16,
    encoded: bool,
    body: &'r [u8],
    /// `None` if it is no JSON.
    tree: Option<Tree>,
}

impl<'r> Reply<'r> {
    /// Reads a reply.
    pub fn of(reply: &'r Response<Bytes>) -> Self {
        let body = reply.body().strip_prefix(b"\xEF\xBB\xBF").unwrap_or(reply.body());
        let plain = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
        let encoded = !reply.headers().get_all("content-encoding").iter().all(plain);
        // Readers that pass over a member do not look whether it is UTF-8.
        let tree = Tree::of(body).or_else(|| Tree::of(String::from_utf8_lossy(body).as_bytes()));
        Self { status: reply.status().as_u16(), encoded, body, tree }
    }

    /// Whether the reply can be proof that a contact of the call is deleted.
    pub fn can_delete(&self, dialect: &str, call: &Call, position: usize) -> bool {
        let identifier = &call.targets[position].identifier;
        let success = self.status == 200 || (dialect == "wethod" && self.status == 204);
        if !success || self.encoded {
            return false;
        }
        if dialect == "wethod" {
            return self.body.is_empty() || self.tree.as_ref().map_or(self.may_be_odd(), |tree| !wethod_error(tree));
        }
        let Some(tree) = &self.tree else { return self.may_be_odd() };
        match dialect {
            "bas_ip" => bas_ip(tree, identifier, true, &["deleted"]),
            "kore_ai" => {
                kore_lists(tree, "successfulRecords", identifier).next().is_some()
                    && kore_lists(tree, "failedRecords", identifier).next().is_none()
            }
            "onlyoffice" => onlyoffice(tree, identifier),
            "talkdesk" => talkdesk(tree, call, position),
            other => panic!("{other}: say what is proof here"),
        }
    }

    /// Whether the reply can be proof that the upstream does not have a contact of the call.
    pub fn can_miss(&self, dialect: &str, call: &Call, position: usize) -> bool {
        let identifier = &call.targets[position].identifier;
        let Some(tree) = &self.tree else { return self.may_be_odd() };
        !self.encoded
            && match dialect {
                "bas_ip" => self.status == 200 && bas_ip(tree, identifier, false, &["entity_not_found", "not_found"]),
                "kore_ai" => {
                    let absent = |record: &Tree| {
                        let said = record.texts().join("\n").to_ascii_lowercase();
                        ["not found", "notfound", "not_found", "does not exist"].iter().any(|word| said.contains(word))
                    };
                    self.status == 200 && kore_lists(tree, "failedRecords", identifier).any(absent)
                }
                "onlyoffice" => {
                    self.status == 404
                        && tree.one(&["status", "Status"]).and_then(Tree::count) == Some(1)
                        && tree.one(&["statusCode", "StatusCode"]).and_then(Tree::count) == Some(404)
                }
                "wethod" => self.status == 404 && tree.one(&["key"]).and_then(Tree::string) == Some("not_found"),
                // It says of no contact that it is not there.
                "talkdesk" => false,
                other => panic!("{other}: say what is proof here"),
            }
    }

    /// JSON readers differ in numbers beyond all bounds and in halves of characters, where a member is passed over.
    fn may_be_odd(&self) -> bool {
        let has = |wanted: &[u8]| self.body.windows(wanted.len()).any(|window| window.eq_ignore_ascii_case(wanted));
        has(b"\\u") || (0..10).any(|digit| has(format!("{digit}e").as_bytes()) || has(format!("{digit}.").as_bytes()))
    }
}

fn same(text: &str, identifier: &Identifier) -> bool {
    text.eq_ignore_ascii_case(identifier.text())
}

fn bas_ip(tree: &Tree, identifier: &Identifier, success: bool, infos: &[&str]) -> bool {
    let items = tree.one(&["result"]).map(Tree::items).unwrap_or_default();
    items.iter().any(|item| {
        item.one(&["link_id"]).and_then(Tree::string).is_some_and(|id| same(id, identifier))
            && item.one(&["success"]) == Some(&Tree::Flag(success))
            && item.one(&["extended_info"]).and_then(Tree::string).is_some_and(|info| infos.contains(&info))
    })
}

/// The records of a list that name a contact and no other.
fn kore_lists<'t>(tree: &'t Tree, list: &'t str, identifier: &'t Identifier) -> impl Iterator<Item = &'t Tree> {
    let records = tree.members().iter().filter(move |(name, _)| name == list).flat_map(|(_, list)| list.items());
    records.filter(|record| {
        let ids = ["id", "_id", "contactId"];
        let named: Vec<_> = record.all(&ids).flat_map(Tree::texts).chain(record.string()).collect();
        // An id may stand in an object besides other texts; where it stands alone, it must be this contact's.
        let plain = record.all(&ids).filter_map(Tree::text).all(|id| same(id, identifier));
        plain && named.iter().any(|id| same(id, identifier))
    })
}

fn onlyoffice(tree: &Tree, identifier: &Identifier) -> bool {
    let ids: Vec<_> =
        tree.one(&["response", "Response"]).into_iter().flat_map(|contact| contact.all(&["id", "ID"])).collect();
    let named: Vec<_> = ids.iter().filter_map(|id| id.text()).collect();
    tree.one(&["status", "Status"]).and_then(Tree::count) == Some(0)
        && tree.one(&["statusCode", "StatusCode"]).and_then(Tree::count) == Some(200)
        && !tree.all(&["error", "Error"]).any(Tree::is_something)
        && !named.is_empty()
        && named.iter().all(|id| *id == identifier.text())
}

fn talkdesk(tree: &Tree, call: &Call, position: usize) -> bool {
    let sent = call.targets.len() as u64;
    let identifier = &call.targets[position].identifier;
    let deleted = tree.one(&["total_deleted"]).and_then(Tree::count);
    let errors = tree.one(&["total_errors"]).and_then(Tree::count);
    let embedded = tree.one(&["_embedded"]);
    let failed = embedded.and_then(|embedded| embedded.one(&["failed_records"])).map(Tree::items).unwrap_or_default();
    if identifier.kind() != IdentifierKind::Id {
        let enough = if sent == 1 { deleted >= Some(1) } else { deleted == Some(sent) };
        return enough && errors.unwrap_or(0) == 0 && failed.is_empty();
    }
    let ours = |identifier: &Identifier| {
        failed.iter().filter_map(|record| record.one(&["id"])?.string()).any(|id| same(id, identifier))
    };
    let named = call.targets.iter().filter(|target| ours(&target.identifier)).count() as u64;
    !ours(identifier) && deleted == Some(sent - named) && errors.unwrap_or(named) == named
}

fn wethod_error(tree: &Tree) -> bool {
    let errors = ["key", "failures", "error", "errors", "violations"];
    tree.all(&errors).any(Tree::is_something) || tree.one(&["success"]) == Some(&Tree::Flag(false))
}

/// The same reply with a success of somebody else's, who is in no call; `None` where a reply has no place for one.
pub fn with_a_stranger(dialect: &str, reply: &Response<Bytes>) -> Option<Response<Bytes>> {
    let text = |text: &str| Tree::Text(text.to_owned());
    let (list, stranger) = match dialect {
        "bas_ip" => {
            let id = ("link_id".to_owned(), text("ffffffff-ffff-4fff-8fff-ffffffffffff"));
            let rest = [("success".to_owned(), Tree::Flag(true)), ("extended_info".to_owned(), text("deleted"))];
            ("result", Tree::Map([id].into_iter().chain(rest).collect()))
        }
        "kore_ai" => ("successfulRecords", text("ffffffffffffffffffffffff")),
        _ => return None,
    };
    let Some(Tree::Map(mut members)) = Tree::of(reply.body()) else { return None };
    let (_, place) = members.iter_mut().find(|(name, _)| name == list)?;
    let Tree::List(items) = place else { return None };
    items.insert(0, stranger);
    let mut changed = reply.clone();
    *changed.body_mut() = Tree::Map(members).to_json().into();
    Some(changed)
}
