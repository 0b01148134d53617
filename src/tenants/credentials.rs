//! The `credentials` of a connection: which form they have, and where their secrets are.
//!
//! A secret is never written into the tenant's file, never into an error. What becomes of it is `outbound`'s business.

use adapters::{AuthScheme, CredentialForm, Grant, Member, grammar};
use secrecy::SecretString;

use super::file::{Context, Secrets};
use super::upstream_url::{self, Leave};
use super::{CredentialValue, Credentials};
use crate::settings::document::Field;
use crate::settings::nearest::did_you_mean;
use crate::settings::secret;

/// Reads `credentials`. All that is wrong is put down; no value ever is.
pub(super) fn read(
    field: &Field<'_>,
    auth: &'static AuthScheme,
    leave: Leave,
    context: &Context<'_>,
) -> Option<Credentials> {
    let table = field.table()?;
    let fields: Vec<_> = table.fields().collect();
    let fits = |form: &&CredentialForm| {
        form.members.len() == fields.len() && form.members.iter().all(|member| table.field(member.name).is_some())
    };
    let form = auth.forms.iter().find(fits);
    let known = || auth.forms.iter().flat_map(|form| form.members);
    let in_header = form.is_some_and(|form| matches!(form.grant, Grant::Fixed));
    let mut values = Vec::new();
    let mut all_known = true;
    for field in &fields {
        match known().find(|member| member.name == field.name) {
            Some(member) => values.push((member.name, value(field, member, in_header, leave, context))),
            None => {
                all_known = false;
                let meant = did_you_mean(field.name, known().map(|member| member.name));
                let hint = [meant, Some(possible(auth))].into_iter().flatten().collect::<Vec<_>>().join(" ");
                field.refuse_key("is not known", Some(hint));
            }
        }
    }
    let Some(form) = form else {
        if all_known {
            field.refuse("do not have one of the possible forms", Some(possible(auth)));
        }
        return None;
    };
    let mut members = Vec::with_capacity(form.members.len());
    for member in form.members {
        let position = values.iter().position(|(name, _)| *name == member.name)?;
        members.push((member.name, values.swap_remove(position).1?));
    }
    Some(Credentials { grant: &form.grant, members })
}

fn possible(auth: &AuthScheme) -> String {
    let form = |form: &CredentialForm| {
        let members: Vec<_> = form.members.iter().map(|member| member.name).collect();
        format!("{{ {} }}", members.join(", "))
    };
    format!("possible: {}", auth.forms.iter().map(form).collect::<Vec<_>>().join(" or "))
}

fn value(
    field: &Field<'_>,
    member: &Member,
    in_header: bool,
    leave: Leave,
    context: &Context<'_>,
) -> Option<CredentialValue> {
    let text = field.text()?;
    if !member.secret {
        return plain(field, text, leave);
    }
    let secret = match secret::fetch(text, context.variable, context.folder, context.secrets == Secrets::Skip) {
        Ok(secret) => secret,
        Err((message, hint)) => {
            field.refuse(&message, hint.map(str::to_owned));
            return None;
        }
    };
    let Some(secret) = secret else { return Some(CredentialValue::Unread) };
    if secret.is_empty() {
        field.refuse("leads to an empty secret", None);
        return None;
    }
    if in_header && !grammar::is_visible_ascii(&secret) {
        field.refuse("leads to a secret with a character that a header cannot carry, such as a blank", None);
        return None;
    }
    Some(match context.secrets {
        Secrets::Read => CredentialValue::Secret(SecretString::from(secret)),
        Secrets::Skip => CredentialValue::Unread,
    })
}

/// A member that is no secret.
fn plain(field: &Field<'_>, text: &str, leave: Leave) -> Option<CredentialValue> {
    if field.name == "token_url" {
        upstream_url::read(field, leave)?;
    } else if text.is_empty() {
        field.refuse("must not be empty", None);
        return None;
    } else if ["env:", "file:", "plain:"].iter().any(|prefix| text.starts_with(prefix)) {
        field.refuse("is no secret and stands here as it is, without a prefix", None);
        return None;
    }
    Some(CredentialValue::Plain(text.to_owned()))
}
