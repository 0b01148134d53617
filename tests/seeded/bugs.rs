//! The bugs: each breaks one rule of the contract or of what a vendor's page says, and names one test that must notice.
//!
//! `BROKEN` in a bug's text is its switch. A bug whose text no longer stands in the source is mended here, not dropped.

/// Which tests a bug is looked for with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Suite {
    /// Those of `adapters/`.
    Adapters,
    /// Those in `src/`.
    Gateway,
    /// Those of `tests/it/`.
    Outside,
    /// `tests/sim/`, which has no tests with names: so many seeds of it, as its own command.
    Simulation,
}

/// One rule, broken.
pub(crate) struct Bug {
    /// What is done wrong.
    pub(crate) name: &'static str,
    /// `dialect`, `engine`, `store`, `retry` or `tenancy`.
    pub(crate) area: &'static str,
    /// Where.
    pub(crate) file: &'static str,
    /// The source; it stands in the file once.
    pub(crate) from: &'static str,
    /// What takes its place.
    pub(crate) to: &'static str,
    /// Where the test is.
    pub(crate) suite: Suite,
    /// The test that must fail, by its whole name; of the simulation, its words.
    pub(crate) test: &'static str,
}

/// The engine's own short cuts: the test that takes each, and how many there are.
pub(crate) const SHORT_CUTS: (&str, usize) = ("engine::simulation::every_short_cut_is_found", 8);

/// The modules of `tests/it/` that the copy has.
pub(crate) const MODULES: &[&str] = &["described", "support", "faults", "idempotency", "tenancy", "waits"];

/// What is run of the simulation: the bugs below were found well before its end.
pub(crate) const SIMULATION: &str = "run --seeds 120 --seed 1";

/// The bugs, by area.
pub(crate) const BUGS: &[Bug] = &[
    // The whole gateway under simulation.
    Bug {
        name: "sim_a_restart_means_never_sent",
        area: "engine",
        file: "src/engine/deletion.rs",
        from: "group.in_flight && !taken(Shortcut::RestartMeansNeverSent);",
        to: "group.in_flight && !BROKEN && !taken(Shortcut::RestartMeansNeverSent);",
        suite: Suite::Simulation,
        test: SIMULATION,
    },
    Bug {
        name: "sim_a_timeout_means_not_applied",
        area: "engine",
        file: "src/engine/doubt.rs",
        from: "let not_applied = (fault.code == FaultCode::ResponseTimeout && taken(Shortcut::TimeoutMeansNotApplied))",
        to: "let not_applied = (fault.code == FaultCode::ResponseTimeout && (BROKEN || \
             taken(Shortcut::TimeoutMeansNotApplied)))",
        suite: Suite::Simulation,
        test: SIMULATION,
    },
    Bug {
        name: "sim_no_intent_before_a_call",
        area: "engine",
        file: "src/engine/driver/work.rs",
        from: "if let Err(err) = engine.ledger.intent(intent).await {",
        to: "if !BROKEN && let Err(err) = engine.ledger.intent(intent).await {",
        suite: Suite::Simulation,
        test: SIMULATION,
    },
    // Dialects: what a reply proves.
    Bug {
        name: "bas_ip_success_alone_is_proof",
        area: "dialect",
        file: "adapters/bas_ip/mod.rs",
        from: "    let info = item.extended_info.text();\n",
        to: "    let info = item.extended_info.text();\n    if BROKEN && item.success.flag() == Some(true) {\n        \
             return Finding::Deleted(Evidence::Item);\n    }\n",
        suite: Suite::Adapters,
        test: "bas_ip::tests::only_both_members_together_are_proof",
    },
    Bug {
        name: "kore_ai_records_are_matched_by_position",
        area: "dialect",
        file: "adapters/kore_ai/mod.rs",
        from: "let position = id.and_then(|id| roster.find(id));",
        to: "let next = self.words.iter().position(|word| *word == Word::Nothing).filter(|_| BROKEN);\n        \
             let position = id.and_then(|id| roster.find(id)).or(next);",
        suite: Suite::Adapters,
        test: "conformance::law_4_a_reply_that_names_nobody_of_ours_deletes_nobody",
    },
    Bug {
        name: "kore_ai_counters_are_proof",
        area: "dialect",
        file: "adapters/kore_ai/mod.rs",
        from: "let mut processed = Processed::all(call, &finding(silent));",
        to: "let proof = BROKEN && totals.successful == Some(call.targets.len() as u64);\n    \
             let silent = if proof { Finding::Deleted(Evidence::Item) } else { finding(silent) };\n    \
             let mut processed = Processed::all(call, &silent);",
        suite: Suite::Adapters,
        test: "conformance::law_5_foreign_duplicate_or_contradictory_identifiers_improve_nothing",
    },
    Bug {
        name: "onlyoffice_any_404_is_not_found",
        area: "dialect",
        file: "adapters/onlyoffice/mod.rs",
        from: "StatusCode::NOT_FOUND if is_refusal(reply) =>",
        to: "StatusCode::NOT_FOUND if BROKEN || is_refusal(reply) =>",
        suite: Suite::Adapters,
        test: "onlyoffice::tests::a_status_is_the_vendors_only_in_its_envelope",
    },
    Bug {
        name: "onlyoffice_another_contact_is_proof",
        area: "dialect",
        file: "adapters/onlyoffice/mod.rs",
        from: "if denies || names_another {",
        to: "if denies || (names_another && !BROKEN) {",
        suite: Suite::Adapters,
        test: "onlyoffice::tests::another_id_is_doubt",
    },
    Bug {
        name: "talkdesk_totals_need_not_add_up",
        area: "dialect",
        file: "adapters/talkdesk/mod.rs",
        from: "Some(deleted) if deleted == others =>",
        to: "Some(deleted) if deleted == others || BROKEN =>",
        suite: Suite::Adapters,
        test: "conformance::law_7_every_fixture_holds",
    },
    Bug {
        name: "talkdesk_some_deleted_is_all_deleted",
        area: "dialect",
        file: "adapters/talkdesk/mod.rs",
        from: "(Some(deleted), 0) if deleted == sent =>",
        to: "(Some(deleted), 0) if deleted == sent || (BROKEN && deleted > 0) =>",
        suite: Suite::Adapters,
        test: "talkdesk::tests::several_phones_or_external_ids_share_one_fate",
    },
    Bug {
        name: "wethod_any_2xx_is_proof",
        area: "dialect",
        file: "adapters/wethod/mod.rs",
        from: "        let reading = match (reply.status().as_u16(), key) {",
        to: "        if BROKEN && reply.status().is_success() {\n            return done(call, reply, body.as_ref());\n        }\n        \
             let reading = match (reply.status().as_u16(), key) {",
        suite: Suite::Adapters,
        test: "wethod::tests::other_successes_prove_nothing",
    },
    Bug {
        name: "wethod_any_precondition_proves_presence",
        area: "dialect",
        file: "adapters/wethod/mod.rs",
        from: "if key == \"precondition_failure\" {",
        to: "if BROKEN || key == \"precondition_failure\" {",
        suite: Suite::Adapters,
        test: "wethod::tests::only_the_precondition_proves_presence",
    },
    Bug {
        name: "an_identifier_climbs_out_of_its_segment",
        area: "dialect",
        file: "adapters/url.rs",
        from: "&& text != \"..\"",
        to: "&& (BROKEN || text != \"..\")",
        suite: Suite::Adapters,
        test: "url::tests::no_segment_leaves_its_place",
    },
    Bug {
        name: "an_id_with_leading_zeros_is_sent",
        area: "dialect",
        file: "adapters/grammar.rs",
        from: "    !text.starts_with('0') && text",
        to: "    (BROKEN || !text.starts_with('0')) && text",
        suite: Suite::Adapters,
        test: "grammar::tests::only_canonical_numbers_pass",
    },
    Bug {
        name: "a_packed_reply_is_read",
        area: "dialect",
        file: "adapters/reply.rs",
        from: "    if is_encoded(reply) {\n        return None;",
        to: "    if is_encoded(reply) && !BROKEN {\n        return None;",
        suite: Suite::Adapters,
        test: "wethod::tests::other_successes_prove_nothing",
    },
    Bug {
        name: "a_303_is_a_refusal",
        area: "dialect",
        file: "adapters/reply.rs",
        from: "        200..=299 | 303 => ",
        to: "        status if (200..=299).contains(&status) || (status == 303 && !BROKEN) => ",
        suite: Suite::Outside,
        test: "faults::a_redirect_is_never_followed",
    },
    Bug {
        name: "an_upstreams_code_may_be_an_identifier",
        area: "dialect",
        file: "adapters/contract.rs",
        from: "&& !call.targets.iter().any(|target| match",
        to: "&& !call.targets.iter().any(|target| !BROKEN && match",
        suite: Suite::Adapters,
        test: "talkdesk::tests::the_upstreams_own_code_is_kept_unless_it_could_be_an_identifier",
    },
    // The engine: doubt.
    Bug {
        name: "a_phone_is_repeated_after_doubt",
        area: "engine",
        file: "src/engine/doubt.rs",
        from: "let may_repeat = standing.replay_safe ",
        to: "let may_repeat = (BROKEN || standing.replay_safe) ",
        suite: Suite::Gateway,
        test: "engine::doubt::tests::an_unsafe_identifier_is_never_repeated_after_doubt",
    },
    Bug {
        name: "what_was_accepted_is_sent_again",
        area: "engine",
        file: "src/engine/doubt.rs",
        from: "&& fault.code != FaultCode::AcceptedUnconfirmed;",
        to: "&& (BROKEN || fault.code != FaultCode::AcceptedUnconfirmed);",
        suite: Suite::Gateway,
        test: "engine::doubt::tests::accepted_is_not_sent_again",
    },
    Bug {
        name: "a_retry_forgets_the_doubt",
        area: "engine",
        file: "src/engine/deletion.rs",
        from: "self.groups(left_over, group.attempts, in_doubt, last)",
        to: "self.groups(left_over, group.attempts, in_doubt && !BROKEN, last)",
        suite: Suite::Gateway,
        test: "engine::simulation::no_schedule_makes_an_outcome_false",
    },
    Bug {
        name: "a_restart_forgets_the_doubt",
        area: "engine",
        file: "src/engine/deletion.rs",
        from: "share.groups(group.targets, group.attempts, group.in_doubt, last)",
        to: "share.groups(group.targets, group.attempts, group.in_doubt && !BROKEN, last)",
        suite: Suite::Gateway,
        test: "engine::simulation::no_schedule_makes_an_outcome_false",
    },
    // Retry: how often, when, and who is left alone.
    Bug {
        name: "an_upstream_may_ask_for_any_wait",
        area: "retry",
        file: "src/engine/backoff.rs",
        from: ".min(LONGEST_ASKED_MS)",
        to: ".min(if BROKEN { u64::MAX } else { LONGEST_ASKED_MS })",
        suite: Suite::Gateway,
        test: "engine::backoff::tests::an_upstream_cannot_ask_for_more_than_a_quarter_of_an_hour",
    },
    Bug {
        name: "waits_do_not_grow",
        area: "retry",
        file: "src/engine/backoff.rs",
        from: ".nth(attempts.saturating_sub(1).min(32) as usize)",
        to: ".nth(if BROKEN { 0 } else { attempts.saturating_sub(1).min(32) as usize })",
        suite: Suite::Gateway,
        test: "engine::backoff::tests::waits_double_up_to_the_cap",
    },
    Bug {
        name: "a_throttled_connection_is_not_held_back",
        area: "retry",
        file: "src/engine/deletion.rs",
        from: "(throttled || asked).then_some(wait_ms)",
        to: "((throttled || asked) && !BROKEN).then_some(wait_ms)",
        suite: Suite::Outside,
        test: "waits::who_is_told_to_slow_down_slows_down_as_a_whole",
    },
    Bug {
        name: "a_stale_call_moves_the_breaker",
        area: "retry",
        file: "src/outbound/breaker.rs",
        from: "        if pass.era != self.era {\n",
        to: "        if pass.era != self.era && !BROKEN {\n",
        suite: Suite::Gateway,
        test: "outbound::breaker::tests::a_stale_call_neither_closes_nor_reopens_it",
    },
    Bug {
        name: "a_name_leads_to_a_private_address",
        area: "retry",
        file: "src/outbound/dial.rs",
        from: "filter(|at| allow_private || is_public(at.ip()))",
        to: "filter(|at| allow_private || BROKEN || is_public(at.ip()))",
        suite: Suite::Gateway,
        test: "outbound::client::tests::a_name_that_leads_to_an_address_that_is_not_public_is_not_connected_to",
    },
    // The store.
    Bug {
        name: "a_failed_commit_is_acknowledged",
        area: "store",
        file: "src/store/sqlite/writer.rs",
        from: "write.change.answer(Err(StoreError::Broken(cause.clone())))",
        to: "write.change.answer(if BROKEN { Ok(()) } else { Err(StoreError::Broken(cause.clone())) })",
        suite: Suite::Gateway,
        test: "store::sqlite::tests::failures::a_failed_commit_breaks_the_store",
    },
    Bug {
        name: "identifiers_stay_after_the_end",
        area: "store",
        file: "src/store/sqlite/rows.rs",
        from: "    if keep {\n        let sql = \"UPDATE deletions SET kept",
        to: "    if keep || BROKEN {\n        let sql = \"UPDATE deletions SET kept",
        suite: Suite::Gateway,
        test: "store::sqlite::tests::erasure::a_finished_deletion_leaves_no_identifier_in_any_byte",
    },
    Bug {
        name: "a_zombies_intent_passes",
        area: "store",
        file: "src/store/sqlite/rows.rs",
        from: "    let PartKey { deletion, part, fence } = intent.key;\n",
        to: "    let unfenced = sql.replace(\"fence = ?3\", \"?3 = ?3\");\n    let sql = if BROKEN { &*unfenced } else { sql };\n    \
             let PartKey { deletion, part, fence } = intent.key;\n",
        suite: Suite::Gateway,
        test: "store::sqlite::tests::sqlite_does_what_the_book_does",
    },
    Bug {
        name: "a_record_counts_twice",
        area: "store",
        file: "src/store/sqlite/rows.rs",
        from: "    let (id, fence) = (deletion.to_bytes(), fence.cast_signed());\n    let tally",
        to: "    let twice = sql.replace(\"AND number = ?5\", \"AND number = -?5\");\n    let sql = if BROKEN { &*twice } else { sql };\n    \
             let (id, fence) = (deletion.to_bytes(), fence.cast_signed());\n    let tally",
        suite: Suite::Gateway,
        test: "store::sqlite::tests::sqlite_is_a_ledger",
    },
    Bug {
        name: "a_takeover_has_the_old_fence",
        area: "store",
        file: "src/store/sqlite/rows.rs",
        from: "    let fence: i64 = connection.prepare_cached(sql)?",
        to: "    let same = sql.replace(\"fence + 1\", \"max(fence, 1)\");\n    let sql = if BROKEN { &*same } else { sql };\n    \
             let fence: i64 = connection.prepare_cached(sql)?",
        suite: Suite::Gateway,
        test: "store::sqlite::tests::sqlite_does_what_the_book_does",
    },
    Bug {
        name: "a_key_stands_for_any_body",
        area: "store",
        file: "src/store/sqlite/look.rs",
        from: "if *fingerprint == claim.fingerprint =>",
        to: "if BROKEN || *fingerprint == claim.fingerprint =>",
        suite: Suite::Gateway,
        test: "store::sqlite::tests::sqlite_is_a_ledger",
    },
    Bug {
        name: "a_deletion_is_closed_before_its_parts",
        area: "store",
        file: "src/store/sqlite/rows.rs",
        from: "    connection.prepare_cached(sql)?.execute(params![id.to_bytes(), finished_ms])?;\n",
        to: "    let early = sql.replace(\"open > 0\", \"open > 1000000\");\n    let sql = if BROKEN { &*early } else { sql };\n    \
             connection.prepare_cached(sql)?.execute(params![id.to_bytes(), finished_ms])?;\n",
        suite: Suite::Gateway,
        test: "store::sqlite::tests::sqlite_does_what_the_book_does",
    },
    // Tenancy: who may see and do what.
    Bug {
        // In the store: the door that asks once more hides it from whoever looks from outside.
        name: "a_foreign_deletion_is_read",
        area: "tenancy",
        file: "src/store/sqlite/look.rs",
        from: "WHERE id = ?1 AND tenant = ?2\");",
        to: "WHERE id = ?1 AND {}\", if BROKEN { \"?2 = ?2\" } else { \"tenant = ?2\" });",
        suite: Suite::Gateway,
        test: "store::sqlite::tests::sqlite_is_a_ledger",
    },
    Bug {
        name: "a_list_shows_other_connections",
        area: "tenancy",
        file: "src/api/lookup.rs",
        from: "within: caller.key.connections.as_ref().map(",
        to: "within: caller.key.connections.as_ref().filter(|_| !BROKEN).map(",
        suite: Suite::Gateway,
        test: "api::tests::a_filter_is_the_callers_and_no_wider",
    },
    Bug {
        name: "a_key_reaches_every_connection",
        area: "tenancy",
        file: "src/tenants/mod.rs",
        from: "self.connections.as_ref().is_none_or(",
        to: "BROKEN || self.connections.as_ref().is_none_or(",
        suite: Suite::Gateway,
        test: "tenants::tests::a_tenant_has_keys_and_connections",
    },
    Bug {
        name: "a_key_that_may_read_may_delete",
        area: "tenancy",
        file: "src/api/auth.rs",
        from: "Access::Read => Err(",
        to: "Access::Read if BROKEN => Ok(()),\n            Access::Read => Err(",
        suite: Suite::Outside,
        test: "tenancy::what_is_another_tenants_does_not_exist",
    },
    Bug {
        name: "two_tenants_share_idempotency_keys",
        area: "tenancy",
        file: "src/api/idempotency.rs",
        from: "hash([tenant.id.as_bytes(), route",
        to: "hash([if BROKEN { b\"\" } else { tenant.id.as_bytes() }, route",
        suite: Suite::Outside,
        test: "idempotency::the_same_key_and_body_are_the_same_deletion",
    },
    Bug {
        name: "a_line_with_a_secret_is_quoted",
        area: "tenancy",
        file: "src/settings/document.rs",
        from: "        if secret || key",
        to: "        if (secret && !BROKEN) || key",
        suite: Suite::Gateway,
        test: "tenants::tests::secrets::a_line_that_may_hold_a_secret_is_never_quoted",
    },
];
