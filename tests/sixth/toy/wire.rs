//! Toy Box's JSON. No logic.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::contract::Target;
use crate::reply::Object;

#[derive(Serialize)]
struct Request<'a> {
    toys: Vec<&'a str>,
}

/// The request's body.
pub(super) fn to_json(targets: &[Target]) -> Bytes {
    let toys = targets.iter().map(|target| target.identifier.text()).collect();
    // Strings cannot fail to serialise; an empty body would be refused by the upstream.
    serde_json::to_vec(&Request { toys }).unwrap_or_default().into()
}

/// The request's body, read back.
#[derive(Deserialize)]
pub(super) struct Asked {
    pub(super) toys: Vec<String>,
}

/// `{"toys":[{"name":"…","state":"gone"}]}`
#[derive(Deserialize)]
pub(super) struct Response<'a> {
    #[serde(borrow)]
    toys: Vec<Object<Item<'a>>>,
}

#[derive(Deserialize)]
pub(super) struct Item<'a> {
    #[serde(borrow)]
    pub(super) name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) state: Option<Cow<'a, str>>,
}

impl<'a> Response<'a> {
    pub(super) fn toys(&self) -> impl Iterator<Item = &Item<'a>> {
        self.toys.iter().map(|Object(item)| item)
    }
}
