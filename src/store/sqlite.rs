//! stub
pub struct Sqlite;
