//! The doubt rule: what one attempt's end means for a contact, given whether an earlier attempt may have been carried out.
//!
//! Once an attempt may have deleted a contact, no later "not found" proves that somebody else did, and no refusal
//! that could also be said of an absent contact proves that it is still there.

use adapters::{Evidence, Fault, FaultCode, Finding, Outcome, Wait};

use super::outcome::{Retry, Settled};
use super::shortcut::{Shortcut, taken};

/// Where a contact stands when an attempt ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// An earlier attempt may have deleted it.
    pub(crate) in_doubt: bool,
    /// Attempts so far, this one included, that may have left the gateway.
    pub(crate) attempts: u32,
    /// Whether a delete by this kind of identifier may be repeated.
    pub(crate) replay_safe: bool,
    /// Whether another attempt is allowed by number and time, as long as it is not in doubt.
    pub(crate) may_try_again: bool,
    /// The same once it is in doubt.
    pub(crate) may_persist: bool,
}

/// What is to be done about a contact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// Nothing more: this is its result.
    Settle(Settled),
    /// Another attempt, in doubt or not.
    Again { in_doubt: bool },
}

/// How an attempt ended for one contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End<'f> {
    /// The reply covers it.
    Found(&'f Finding),
    /// The upstream did not process the call.
    TurnedAway(&'f Fault),
    /// It certainly was not sent.
    NotSent(&'f Fault),
    /// It may have been carried out.
    Doubtful(&'f Fault),
}

/// Rules on one contact.
pub(crate) fn rule(standing: Standing, end: End<'_>) -> Ruling {
    match end {
        End::Found(Finding::Deleted(evidence)) => {
            Ruling::Settle(Settled::absent(Outcome::Deleted, *evidence, standing.attempts))
        }
        End::Found(Finding::NotFound(evidence)) => {
            let inferred = standing.in_doubt && !taken(Shortcut::NotFoundAfterDoubtIsProof);
            let evidence = if inferred { Evidence::Inferred } else { *evidence };
            Ruling::Settle(Settled::absent(Outcome::NotFound, evidence, standing.attempts))
        }
        End::Found(Finding::Fault(fault)) if fault.code.outcome() == Outcome::Unknown => doubtful(standing, fault),
        End::Found(Finding::Fault(fault)) => refused(standing, fault),
        End::TurnedAway(fault) | End::NotSent(fault) => {
            let again = match standing.in_doubt {
                // Even a refusal that never passes says nothing of it, and the next answer may.
                true => standing.may_persist && standing.replay_safe && !fault.still_there,
                false => standing.may_try_again && passes(fault.code),
            };
            if again { Ruling::Again { in_doubt: standing.in_doubt } } else { refused(standing, fault) }
        }
        End::Doubtful(fault) => doubtful(standing, fault),
    }
}

/// What becomes of a contact that is given up before another attempt: out of time, or cancelled.
pub(crate) fn give_up(
    in_doubt: bool,
    attempts: u32,
    replay_safe: bool,
    last: Option<&Fault>,
    why: FaultCode,
) -> Settled {
    let skipped = Settled::fault(&Fault::new(why), attempts, Retry::Safe);
    if why == FaultCode::Cancelled && taken(Shortcut::CancelAfterDoubtMeansSkipped) {
        return skipped;
    }
    if in_doubt {
        let lost = Fault::new(FaultCode::ConnectionLost);
        let last = last.unwrap_or(&lost);
        return Settled::unknown(last, attempts, when_unknown(last.code, replay_safe));
    }
    if attempts == 0 {
        return skipped;
    }
    // It was tried, and turned away: "skipped" would say that it never was.
    let unspecified = Fault::new(FaultCode::UpstreamUnspecified);
    let last = last.unwrap_or(&unspecified);
    Settled::fault(last, attempts, retry(last))
}

fn refused(standing: Standing, fault: &Fault) -> Ruling {
    let proves_nothing = !fault.still_there && !taken(Shortcut::RefusalAfterDoubtMeansThere);
    if standing.in_doubt && proves_nothing {
        let retry = when_unknown(fault.code, standing.replay_safe);
        return Ruling::Settle(Settled::unknown(fault, standing.attempts, retry));
    }
    Ruling::Settle(Settled::fault(fault, standing.attempts, retry(fault)))
}

fn doubtful(standing: Standing, fault: &Fault) -> Ruling {
    let not_applied = (fault.code == FaultCode::ResponseTimeout && taken(Shortcut::TimeoutMeansNotApplied))
        || (fault.code == FaultCode::UpstreamError && taken(Shortcut::ServerErrorMeansNotApplied));
    // 202: the upstream has it and is at work on it; asking again would not tell more.
    let may_repeat = standing.replay_safe && fault.code != FaultCode::AcceptedUnconfirmed;
    if standing.may_persist && may_repeat {
        return Ruling::Again { in_doubt: standing.in_doubt || !not_applied };
    }
    if not_applied && !standing.in_doubt {
        let fault = Fault { code: FaultCode::UpstreamUnavailable, ..fault.clone() };
        return Ruling::Settle(Settled::fault(&fault, standing.attempts, Retry::Safe));
    }
    let retry = when_unknown(fault.code, standing.replay_safe);
    Ruling::Settle(Settled::unknown(fault, standing.attempts, retry))
}

/// Whether what was refused now may pass by itself.
pub(super) fn passes(code: FaultCode) -> bool {
    matches!(
        code,
        FaultCode::ConnectFailed
            | FaultCode::CredentialUnavailable
            | FaultCode::UpstreamUnauthenticated
            | FaultCode::UpstreamRateLimited
            | FaultCode::UpstreamUnavailable
    )
}

fn when_unknown(code: FaultCode, replay_safe: bool) -> Retry {
    if replay_safe && code != FaultCode::AcceptedUnconfirmed { Retry::Safe } else { Retry::VerifyFirst }
}

/// Seconds that a caller is asked to wait where the upstream named none.
const DEFAULT_WAIT_S: u64 = 60;

/// How a caller may go on after a fault that left no doubt.
fn retry(fault: &Fault) -> Retry {
    // A date has been turned into seconds by the state machine, which knows the time.
    let wait_s = match fault.wait {
        Some(Wait::For(seconds)) => Some(seconds),
        _ => None,
    };
    match fault.code {
        FaultCode::UpstreamRateLimited | FaultCode::UpstreamUnavailable => {
            Retry::After(wait_s.unwrap_or(DEFAULT_WAIT_S))
        }
        FaultCode::ConnectFailed | FaultCode::CredentialUnavailable => wait_s.map_or(Retry::Safe, Retry::After),
        code if code.outcome() == Outcome::Rejected => Retry::Never,
        _ => Retry::Safe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(in_doubt: bool) -> Standing {
        Standing { in_doubt, attempts: 1, replay_safe: true, may_try_again: false, may_persist: false }
    }

    fn fault(code: FaultCode) -> Fault {
        Fault { upstream: Some(adapters::UpstreamWord { status: 400, code: None }), ..Fault::new(code) }
    }

    fn settled(standing: Standing, end: End<'_>) -> (Outcome, Option<bool>, Evidence, Option<Retry>) {
        let Ruling::Settle(settled) = rule(standing, end) else { panic!("not settled") };
        (settled.outcome, settled.absent, settled.evidence, settled.retry)
    }

    #[test]
    fn not_found_after_doubt_is_inferred() {
        let found = Finding::NotFound(Evidence::Item);
        assert_eq!(settled(standing(false), End::Found(&found)).2, Evidence::Item);
        assert_eq!(settled(standing(true), End::Found(&found)).2, Evidence::Inferred);
    }

    #[test]
    fn a_refusal_after_doubt_stands_only_with_proof() {
        let refusal = fault(FaultCode::UpstreamForbidden);
        assert_eq!(settled(standing(false), End::TurnedAway(&refusal)).0, Outcome::Rejected);
        assert_eq!(settled(standing(true), End::TurnedAway(&refusal)).0, Outcome::Unknown);
        let proof = fault(FaultCode::UpstreamPrecondition).still_there();
        assert_eq!(settled(standing(true), End::TurnedAway(&proof)).0, Outcome::Rejected);
        assert_eq!(settled(standing(true), End::TurnedAway(&proof)).1, Some(false));
    }

    #[test]
    fn a_refusal_after_doubt_is_asked_again_where_a_repeat_is_safe_and_it_proves_nothing() {
        let refusal = fault(FaultCode::UpstreamForbidden);
        let again = Standing { may_persist: true, ..standing(true) };
        assert_eq!(rule(again, End::TurnedAway(&refusal)), Ruling::Again { in_doubt: true });
        let unsafe_kind = Standing { replay_safe: false, ..again };
        assert_eq!(settled(unsafe_kind, End::TurnedAway(&refusal)).0, Outcome::Unknown);
        assert_eq!(settled(again, End::TurnedAway(&refusal.clone().still_there())).0, Outcome::Rejected);
        // Of this contact the upstream itself said it.
        assert_eq!(settled(again, End::Found(&Finding::Fault(refusal.clone()))).0, Outcome::Unknown);
        // And where nothing is in doubt, it is final.
        let sure = Standing { may_try_again: true, may_persist: true, ..standing(false) };
        assert_eq!(settled(sure, End::TurnedAway(&refusal)).0, Outcome::Rejected);
    }

    #[test]
    fn every_code_has_its_own_outcome_without_doubt() {
        for code in FaultCode::ALL {
            let fault = Fault::new(code);
            let finding = Finding::Fault(fault.clone());
            assert_eq!(settled(standing(false), End::Found(&finding)).0, code.outcome());
            if code.outcome() != Outcome::Unknown {
                assert_eq!(settled(standing(true), End::Found(&finding)).0, Outcome::Unknown, "{code:?}");
            }
        }
    }

    #[test]
    fn an_unsafe_identifier_is_never_repeated_after_doubt() {
        let lost = Fault::new(FaultCode::ConnectionLost);
        let again = Standing { may_try_again: true, may_persist: true, ..standing(false) };
        assert_eq!(rule(again, End::Doubtful(&lost)), Ruling::Again { in_doubt: true });
        let unsafe_kind = Standing { replay_safe: false, ..again };
        let (outcome, absent, _, retry) = settled(unsafe_kind, End::Doubtful(&lost));
        assert_eq!((outcome, absent, retry), (Outcome::Unknown, None, Some(Retry::VerifyFirst)));
    }

    #[test]
    fn accepted_is_not_sent_again() {
        let accepted = Fault::new(FaultCode::AcceptedUnconfirmed);
        let again = Standing { may_try_again: true, may_persist: true, ..standing(false) };
        assert_eq!(settled(again, End::Doubtful(&accepted)).3, Some(Retry::VerifyFirst));
    }

    #[test]
    fn giving_up_says_only_what_is_known() {
        let lost = Fault::new(FaultCode::ConnectFailed);
        let up = |doubt, attempts, last, why| give_up(doubt, attempts, true, last, why).outcome;
        assert_eq!(up(false, 0, None, FaultCode::Cancelled), Outcome::Skipped);
        assert_eq!(up(false, 0, None, FaultCode::DeadlineExceeded), Outcome::Skipped);
        assert_eq!(up(false, 1, Some(&lost), FaultCode::DeadlineExceeded), Outcome::Failed);
        assert_eq!(up(false, 1, Some(&lost), FaultCode::Cancelled), Outcome::Failed);
        assert_eq!(up(false, 1, None, FaultCode::Cancelled), Outcome::Failed);
        assert_eq!(up(true, 1, Some(&lost), FaultCode::DeadlineExceeded), Outcome::Unknown);
        assert_eq!(up(true, 1, Some(&lost), FaultCode::Cancelled), Outcome::Unknown);
        assert_eq!(up(true, 1, None, FaultCode::Cancelled), Outcome::Unknown);
    }
}
