//! The shortest way through all stations, for every dialect.

use adapters::DIALECTS;
use serde_json::json;

use crate::support::{Setup, id, ids, mock};

#[tokio::test]
async fn one_contact_goes_through_every_dialect() {
    for registration in DIALECTS {
        let dialect = registration.profile.id;
        let mock = mock(dialect).await;
        let gateway = Setup::new().mock("acme", "c", &mock, |_| {}).start().await;
        let known = ids(dialect, 2);
        mock.seed(&id(&known[0]), false);
        let answer = gateway.post("acme", &json!({ "contacts": [known[0]] })).await;
        assert_eq!((answer.status, answer.outcomes()), (200, vec!["deleted"]), "{dialect}: {}", answer.text);
        assert_eq!(mock.deleted(), [id(&known[0])], "{dialect}");
        gateway.stop().await;
    }
}
