//! Whether the machine has the memory that sequences can come to need.

use crate::{EngineInfo, Limits};

const GIB: f64 = (1_u64 << 30) as f64;

/// The KV memory that a server's limits ask for is more than there is.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error(
    "--parallel {parallel} and --context {context} need {:.2} GiB of KV memory ({per_token} bytes a token), and \
     {:.2} GiB are free: lower one of them, {hint}",
    *.needed as f64 / GIB,
    *.free as f64 / GIB
)]
pub(crate) struct NoRoom {
    parallel: usize,
    context: usize,
    per_token: u64,
    needed: u64,
    free: u64,
    hint: String,
}

/// Bytes of KV memory that `limits` can come to need.
pub(crate) fn kv_bound(info: &EngineInfo, limits: Limits) -> u64 {
    info.kv_bytes_per_token
        .saturating_mul(limits.parallel as u64)
        .saturating_mul(limits.context as u64)
}

/// Bytes that this process can still take: what the machine has available, or less if a control group says so.
pub fn free() -> u64 {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    // A group's page cache counts as used there, though it is given back on demand: only `rss` is really taken.
    let group = system
        .cgroup_limits()
        .map(|group| group.total_memory.saturating_sub(group.rss));
    system.available_memory().min(group.unwrap_or(u64::MAX))
}

/// That the KV memory of an engine on the CPU fits into `free` bytes; elsewhere the device refuses by itself.
pub(crate) fn check(info: &EngineInfo, limits: Limits, free: u64) -> Result<(), NoRoom> {
    let needed = kv_bound(info, limits);
    if info.device != "cpu" || needed <= free {
        return Ok(());
    }
    let fits = |other: usize| free / info.kv_bytes_per_token.saturating_mul(other as u64).max(1);
    let hint = match (fits(limits.context), fits(limits.parallel)) {
        (0, _) => format!("even one sequence fits only up to --context {}", fits(1)),
        (parallel, 0 | 1) => format!("as to --parallel {parallel}"),
        (parallel, context) => format!("as to --parallel {parallel} or --context {context}"),
    };
    Err(NoRoom {
        parallel: limits.parallel,
        context: limits.context,
        per_token: info.kv_bytes_per_token,
        needed,
        free,
        hint,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info(per_token: u64, device: &str) -> EngineInfo {
        EngineInfo {
            engine: "fake".into(),
            version: "1".into(),
            model: "fake".into(),
            weights: "none".into(),
            weights_bytes: 0,
            kv_bytes_per_token: per_token,
            max_context: usize::MAX,
            vocabulary: 1,
            device: device.into(),
            threads: 1,
        }
    }

    fn limits(parallel: usize, context: usize) -> Limits {
        Limits {
            parallel,
            context,
            queue: 1,
            prefill_chunk: 1,
        }
    }

    #[test]
    fn the_message_names_the_flags_and_what_would_fit() {
        let refused = |parallel, context| {
            check(&info(1 << 20, "cpu"), limits(parallel, context), 3 << 30)
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            refused(4, 1024),
            "--parallel 4 and --context 1024 need 4.00 GiB of KV memory (1048576 bytes a token), and 3.00 GiB are \
             free: lower one of them, as to --parallel 3 or --context 768"
        );
        assert!(refused(1, 4096).ends_with("even one sequence fits only up to --context 3072"));
        assert!(refused(3000, 1024).ends_with("as to --parallel 3"));
    }

    #[test]
    fn a_device_refuses_by_itself() {
        assert_eq!(check(&info(1 << 40, "cuda:0"), limits(64, 4096), 1), Ok(()));
    }

    #[test]
    fn this_machine_has_some_memory() {
        assert!(free() > 0);
    }

    proptest! {
        #[test]
        fn what_fits_is_taken_and_what_does_not_is_refused(
            per_token in 1_u64..1 << 40, parallel: usize, context in 2_usize.., free: u64,
        ) {
            let fits = per_token as f64 * parallel as f64 * context as f64 <= free as f64;
            let near = (per_token as f64 * parallel as f64 * context as f64 / free.max(1) as f64 - 1.0).abs() < 1e-9;
            let taken = check(&info(per_token, "cpu"), limits(parallel, context), free).is_ok();
            prop_assert!(near || free == u64::MAX || taken == fits);
        }
    }
}
