//! The schema `onedelete`: making it, and bringing it to the version that this program knows.
//!
//! Every step is one transaction, and an advisory lock lets one gateway at a time look and step. Nothing outside the
//! schema is read or changed, and a schema that is not ours is left as it is.

use deadpool_postgres::{Object, Transaction};

use super::fault::Failure;

/// The steps from each version to the next, from none to the first on.
const STEPS: [&str; 1] = [include_str!("1.sql")];
/// The lock that is held while the version is looked at and changed: `1delete` in ASCII.
const LOCK: i64 = 0x0031_6465_6c65_7465;

/// Brings the tables to this program's version, and answers the key of the hashes.
pub(super) async fn migrate(client: &mut Object) -> Result<[u8; 16], Failure> {
    loop {
        let transaction = client.transaction().await?;
        transaction.batch_execute("SET LOCAL statement_timeout = 0; SET LOCAL enable_seqscan = on").await?;
        transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
        let version = version(&transaction).await?;
        let Some(step) = STEPS.get(version) else {
            let row = transaction.query_one("SELECT hash_key FROM onedelete.meta", &[]).await?;
            let key: Vec<u8> = row.try_get(0)?;
            // The lock goes with the transaction.
            transaction.commit().await?;
            return key.try_into().map_err(|_| Failure::unreadable());
        };
        if version == 0 {
            begin(&transaction).await?;
        }
        transaction.batch_execute(step).await?;
        if version == 0 {
            let mut key = [0; 16];
            aws_lc_rs::rand::fill(&mut key).map_err(|_| Failure::broken("the system has no random numbers"))?;
            let sql = "INSERT INTO onedelete.meta (program, version, hash_key) VALUES ('onedelete', 1, $1)";
            transaction.execute(sql, &[&key.as_slice()]).await?;
        } else {
            transaction.execute("UPDATE onedelete.meta SET version = version + 1", &[]).await?;
        }
        transaction.commit().await?;
    }
}

/// The version of the tables: 0 where there are none.
async fn version(transaction: &Transaction<'_>) -> Result<usize, Failure> {
    let sql = "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = n.oid),
            has_schema_privilege(n.oid, 'USAGE')
        FROM pg_namespace n WHERE nspname = 'onedelete'";
    let Some(schema) = transaction.query_opt(sql, &[]).await? else { return Ok(0) };
    if !schema.try_get::<_, bool>(1)? {
        return Err(Failure::Lasting("the database user may not use the schema onedelete".to_owned()));
    }
    if schema.try_get::<_, i64>(0)? == 0 {
        return Ok(0);
    }
    // Another program's schema may have a table of this name, with whatever columns.
    let sql = "SELECT count(*) FROM pg_attribute WHERE attrelid = to_regclass('onedelete.meta')
        AND attname IN ('program', 'version', 'hash_key') AND NOT attisdropped";
    let ours = transaction.query_one(sql, &[]).await?.try_get::<_, i64>(0)? == 3;
    let not_ours = || Failure::Lasting("the schema onedelete of this database belongs to another program".to_owned());
    if !ours {
        return Err(not_ours());
    }
    let sql = "SELECT version FROM onedelete.meta WHERE program = 'onedelete'";
    let row = transaction.query_opt(sql, &[]).await?.ok_or_else(not_ours)?;
    let version = usize::try_from(row.try_get::<_, i32>(0)?).map_err(|_| not_ours())?;
    match version {
        0 => Err(not_ours()),
        version if version > STEPS.len() => Err(Failure::Lasting(format!(
            "the schema onedelete was made by a newer version of this program: its tables are of version {version}, and \
             this one knows {}",
            STEPS.len()
        ))),
        version => Ok(version),
    }
}

/// Makes the schema, if there is none.
async fn begin(transaction: &Transaction<'_>) -> Result<(), Failure> {
    let sql = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'onedelete'),
        has_database_privilege(current_database(), 'CREATE')";
    let row = transaction.query_one(sql, &[]).await?;
    let (there, allowed): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
    if there {
        let sql = "SELECT has_schema_privilege('onedelete', 'CREATE')";
        return match transaction.query_one(sql, &[]).await?.try_get(0)? {
            true => Ok(()),
            false => {
                Err(Failure::Lasting("the database user may not create tables in the schema onedelete".to_owned()))
            }
        };
    }
    if !allowed {
        let why = "the database user may not create a schema; one named onedelete that it owns will do";
        return Err(Failure::Lasting(why.to_owned()));
    }
    Ok(transaction.batch_execute("CREATE SCHEMA onedelete").await?)
}
