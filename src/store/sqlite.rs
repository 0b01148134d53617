//! stub
use super::*;
use std::future::ready;
/// stub
pub struct Sqlite(Memory);
impl Sqlite {
    /// stub
    pub fn open(_: &std::path::Path) -> Result<Self, StoreError> {
        Ok(Self(Memory::default()))
    }
}
impl Ledger for Sqlite {
    fn accept(&self, deletion: Arc<Accept>) -> Reply<'_, ()> {
        self.0.accept(deletion)
    }
    fn intent(&self, intent: Intent) -> Reply<'_, ()> {
        self.0.intent(intent)
    }
    fn record(&self, record: Record) -> Reply<'_, ()> {
        self.0.record(record)
    }
    fn finish(&self, id: DeletionId, finished_ms: i64) -> Reply<'_, ()> {
        self.0.finish(id, finished_ms)
    }
    fn read(&self, id: DeletionId) -> Reply<'_, Option<Stored>> {
        self.0.read(id)
    }
    fn take_over(&self) -> Reply<'_, Vec<Unfinished>> {
        Box::pin(ready(Ok(Vec::new())))
    }
    fn healthy(&self) -> bool {
        true
    }
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(ready(()))
    }
}
