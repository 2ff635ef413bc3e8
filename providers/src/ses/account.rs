//! What `GetAccount` says about the account: whether it may send, and how much.
//! <https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_GetAccount.html>

use aws_sdk_sesv2::operation::get_account::GetAccountOutput;

use super::rules::LEAVE_SANDBOX;
use crate::contract::{Allowance, Probed};

/// The quota and the rate; `None` where the answer has neither.
pub(super) fn allowance(account: &GetAccountOutput) -> Option<Allowance> {
    let quota = account.send_quota()?;
    // -1 is no limit. 0 is no number that SES gives, but the SDK's when the member is absent.
    let limit = |number: f64| Some(number).filter(|number| number.is_finite() && *number > 0.0);
    let whole = |number: f64| number.min(u32::MAX.into()) as u64;
    Some(Allowance {
        per_second: limit(quota.max_send_rate()),
        per_day: limit(quota.max24_hour_send()).map(whole),
        used_today: Some(whole(quota.sent_last24_hours().max(0.0).ceil())),
    })
}

/// What is in order, and what is not.
pub(super) fn probed(account: &GetAccountOutput) -> Probed {
    let allowance = allowance(account);
    let mut probed = Probed { allowance, ..Probed::default() };
    probed = match account.sending_enabled() {
        true => probed.fact("sending is enabled"),
        false => probed.warning("sending is paused for this account: see Account dashboard in the SES console of this region"),
    };
    probed = match account.production_access_enabled() {
        true => probed.fact("the account has production access"),
        false => probed.warning(LEAVE_SANDBOX),
    };
    probed = match account.enforcement_status().unwrap_or_default() {
        "" => probed,
        "HEALTHY" => probed.fact("its reputation is healthy"),
        "PROBATION" => probed.warning(
            "the account is under review: see Reputation metrics in the SES console and answer the case in the AWS Support Center, or sending is paused",
        ),
        "SHUTDOWN" => probed.warning(
            "AWS has paused this account's sending: correct what the case in the AWS Support Center names, and ask there for it to be resumed",
        ),
        other => probed.warning(format!("its enforcement status is {other}: see Account dashboard in the SES console")),
    };
    let Some(Allowance { per_second, per_day, used_today }) = allowance else { return probed };
    if let Some(rate) = per_second {
        probed = probed.fact(format!("up to {rate} recipients each second"));
    }
    match (per_day, used_today.unwrap_or_default()) {
        (None, used) => probed.fact(format!("no daily quota; {used} recipients in the last 24 hours")),
        (Some(quota), used) => {
            probed = probed.fact(format!("{used} of {quota} recipients used in the last 24 hours"));
            match used.saturating_mul(10) >= quota.saturating_mul(9) {
                true => probed.warning(
                    "the daily quota is nearly used up: ask for more in the AWS console under Service Quotas > Amazon Simple Email Service",
                ),
                false => probed,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_sesv2::types::SendQuota;

    use super::*;

    fn account(day: f64, rate: f64, used: f64) -> GetAccountOutput {
        let quota = SendQuota::builder().max24_hour_send(day).max_send_rate(rate).sent_last24_hours(used).build();
        GetAccountOutput::builder()
            .production_access_enabled(true)
            .sending_enabled(true)
            .enforcement_status("HEALTHY")
            .send_quota(quota)
            .build()
    }

    #[test]
    fn minus_one_is_no_limit_and_an_absent_number_none_that_is_known() {
        for (day, rate, used, expected) in [
            (50_000.0, 14.0, 49_000.2, (Some(14.0), Some(50_000), Some(49_001))),
            (-1.0, -1.0, 7.0, (None, None, Some(7))),
            (0.0, 0.0, 0.0, (None, None, Some(0))),
            (f64::NAN, f64::INFINITY, -3.0, (None, None, Some(0))),
        ] {
            let read = allowance(&account(day, rate, used)).unwrap();
            assert_eq!((read.per_second, read.per_day, read.used_today), expected);
        }
        assert_eq!(allowance(&GetAccountOutput::builder().build()), None);
    }

    #[test]
    fn each_state_of_an_account_is_told_with_what_to_do() {
        let fine = probed(&account(50_000.0, 14.0, 12.0));
        assert_eq!(fine.warnings, Vec::<String>::new());
        assert!(fine.facts.contains(&"12 of 50000 recipients used in the last 24 hours".to_owned()), "{fine:?}");
        assert!(fine.facts.contains(&"up to 14 recipients each second".to_owned()), "{fine:?}");

        let nearly = probed(&account(200.0, 1.0, 190.0));
        assert!(nearly.warnings[0].contains("nearly used up"), "{nearly:?}");

        let mut broken = account(-1.0, 14.0, 0.0);
        broken.production_access_enabled = false;
        broken.sending_enabled = false;
        for (status, word) in [("PROBATION", "under review"), ("SHUTDOWN", "paused this account"), ("NEW", "NEW")] {
            broken.enforcement_status = Some(status.to_owned());
            let warnings = probed(&broken).warnings;
            assert!(warnings[0].contains("sending is paused") && warnings[1].contains("sandbox"), "{warnings:?}");
            assert!(warnings.len() == 3 && warnings[2].contains(word), "{warnings:?}");
        }
    }
}
