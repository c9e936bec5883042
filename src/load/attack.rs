//! The only file that knows goose: it starts, ramps, holds and stops the users of one shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use goose::client::GooseClientBuilder;
use goose::config::GooseConfiguration;
use goose::goose::{GooseUser, Scenario, Transaction, TransactionFunction, TransactionResult};
use goose::metrics::GooseMetrics;
use goose::{GooseAttack, GooseError};
use tokio::sync::Mutex;

use super::user::{Ended, Shard, User};

/// How requests are named in goose's rows.
const METHOD: &str = "POST";
const NAME: &str = "stream";

/// goose empties its rows when the last user has started. Rows are kept back for so long after that, so that none
/// is lost.
const ROWS_EMPTIED: Duration = Duration::from_secs(1);

/// goose refused the attack or gave it up. Its text holds its cause already, so the chain ends here.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AttackError(Box<GooseError>);

impl From<GooseError> for AttackError {
    fn from(error: GooseError) -> Self {
        Self(Box::new(error))
    }
}

/// A user and the rows that goose has not been told of.
struct Seat {
    user: User,
    untold: Vec<Ended>,
}

/// goose wants what it keeps for a user to be `Clone`.
type Session = Arc<Mutex<Seat>>;

/// Asks goose to end every attack. It looks twice a second.
pub(super) fn stop() {
    goose::trigger_killswitch("the step is over");
}

/// Runs `users` users until [`stop`] is called and their last request is over. Returns how many requests goose counted
/// as (succeeded, failed).
pub(super) async fn run(shard: Arc<Shard>, users: u32, ramp: Duration) -> Result<(u64, u64), AttackError> {
    let seats = Arc::new(AtomicU32::new(0));
    let start = transaction({
        let shard = shard.clone();
        move |goose_user| {
            let (shard, seats) = (shard.clone(), seats.clone());
            Box::pin(async move {
                let user = User::start(shard, seats.fetch_add(1, SeqCst)).await;
                goose_user.set_session_data(Session::new(Mutex::new(Seat {
                    user,
                    untold: Vec::new(),
                })));
                Ok(())
            })
        }
    });
    let ask = transaction(move |goose_user| {
        let shard = shard.clone();
        Box::pin(async move { ask(&shard, goose_user).await })
    });
    let tell = transaction(|goose_user| Box::pin(tell_all(goose_user)));
    let scenario = Scenario::new("stream")
        .register_transaction(Transaction::new(start).set_on_start())
        .register_transaction(Transaction::new(ask).set_name(NAME))
        .register_transaction(Transaction::new(tell).set_on_stop());
    let metrics = GooseAttack::initialize_with_config(configuration(users, ramp))?
        // One HTTP client of goose's own for all users, which none of them uses.
        .set_client_builder_without_cookies(GooseClientBuilder::new().without_cookies())?
        .register_scenario(scenario)
        .execute()
        .await?;
    Ok(counts(&metrics))
}

fn transaction<F>(function: F) -> TransactionFunction
where
    F: for<'r> Fn(
            &'r mut GooseUser,
        ) -> std::pin::Pin<Box<dyn Future<Output = TransactionResult> + Send + 'r>>
        + Send
        + Sync
        + 'static,
{
    Arc::new(function)
}

fn configuration(users: u32, ramp: Duration) -> GooseConfiguration {
    let rate = if ramp.is_zero() {
        1e5
    } else {
        f64::from(users) / ramp.as_secs_f64()
    };
    let mut configuration = GooseConfiguration::default();
    // Not asked: goose only insists on having one.
    configuration.host = Some("http://localhost".into());
    configuration.users = Some(users as usize);
    configuration.increase_rate = Some(format!("{rate:.6}"));
    // goose must be silent, open no port and leave the counting of anything but requests alone.
    configuration.quiet = 2;
    configuration.no_print_metrics = true;
    configuration.no_error_summary = true;
    configuration.no_transaction_metrics = true;
    configuration.no_scenario_metrics = true;
    configuration.no_telnet = true;
    configuration.no_gzip = true;
    configuration
}

async fn ask(shard: &Shard, goose_user: &mut GooseUser) -> TransactionResult {
    let session = goose_user.get_session_data_unchecked::<Session>().clone();
    let mut seat = session.lock().await;
    let Some(ended) = seat.user.ask().await else {
        // goose has not told this user to exit yet.
        tokio::time::sleep(Duration::from_millis(20)).await;
        return Ok(());
    };
    seat.untold.push(ended);
    let settled = shard
        .control
        .all_started_ns()
        .is_some_and(|at| shard.reader.shared().clock.now_ns() > at + ROWS_EMPTIED.as_nanos() as u64);
    if settled {
        tell(&mut seat.untold, goose_user).await?;
    }
    Ok(())
}

async fn tell_all(goose_user: &mut GooseUser) -> TransactionResult {
    let Some(session) = goose_user.get_session_data::<Session>().cloned() else {
        return Ok(());
    };
    let mut seat = session.lock().await;
    tell(&mut seat.untold, goose_user).await
}

async fn tell(untold: &mut Vec<Ended>, goose_user: &mut GooseUser) -> TransactionResult {
    for Ended { took, ok, status } in untold.drain(..) {
        let error = (!ok).then_some("failed");
        goose_user
            .record_custom_request_duration(METHOD, NAME, took, ok, status, error)
            .await?;
    }
    Ok(())
}

fn counts(metrics: &GooseMetrics) -> (u64, u64) {
    metrics.requests.values().fold((0, 0), |(ok, failed), row| {
        (ok + row.success_count as u64, failed + row.fail_count as u64)
    })
}
