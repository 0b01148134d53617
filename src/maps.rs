//! Maps that are asked on every request, by names that callers cannot choose: tenants, connections, keys' hashes.
//!
//! The standard library's hash withstands whoever chooses keys so that they collide, and costs as much as a small allocation.
//! Where an address or a text of a caller's is the key, its maps are used.

pub(crate) use hashbrown::{HashMap, HashSet};
