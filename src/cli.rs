//! The command line: types only. Flags of a load test are the settings of a profile, under the same names.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::profile::{Settings, duration, shipped};

/// Load-tests LLM inference servers: TTFT, ITL, throughput scaling and tail latency, with the client's own error
/// beside every figure.
///
/// Without a command it runs a load test: the profile `quick` against the embedded engine, or what the flags say.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, args_conflicts_with_subcommands = true, after_help = after_help())]
pub struct Cli {
    /// Something else than a load test.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The load test.
    #[command(flatten)]
    pub run: Run,
}

const EXAMPLES: &str = "\
Examples:
  loadtest                                            the profile `quick` against candle
  loadtest --profile sustained-64                     64 users, 5 minutes, every engine it names
  loadtest --users 10..100 --step 10                  one level of concurrency after another
  loadtest --engine candle,llamacpp --users 16        the same load on two engines
  loadtest --profile s1-s6                            one user: prefill and decode speed
  loadtest --url http://host:8000 --model M           a server that runs already

Exit codes: 0 done; 1 could not be done; 2 usage; 3 done, but a gate failed;
130 interrupted, with what was measured saved.";

fn after_help() -> String {
    let mut text = "Profiles:\n".to_owned();
    for (name, description) in shipped() {
        text += &format!("  {name:<15} {description}\n");
    }
    format!("{text}\n{EXAMPLES}")
}

/// A load test.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// Profile to start from: a name from the list below, or a .toml file; flags override it
    #[arg(long, value_name = "NAME|PATH", help_heading = "What to test")]
    pub profile: Option<String>,
    /// Print the plan and stop
    #[arg(long, help_heading = "What to test")]
    pub dry_run: bool,
    /// Key for the server, sent as a bearer token; never printed or saved
    #[arg(
        long,
        env = "OPENAI_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        help_heading = "Requests"
    )]
    pub api_key: Option<Secret>,
    /// Everything that a profile can say too.
    #[command(flatten)]
    pub settings: Settings,
}

/// A text that must not be printed: its `Debug` form hides it, and it has no other.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the request that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(...)")
    }
}

/// What `loadtest` does besides load tests.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// List engines: kind, version, whether they are installed and what to do
    #[command(args_conflicts_with_subcommands = true)]
    Engines {
        /// What to do with an engine; without it, all are listed.
        #[command(subcommand)]
        action: Option<EngineAction>,
        /// What to print
        #[arg(long, value_enum, default_value = "table")]
        format: TableFormat,
    },
    /// Start an engine and let it serve a model until it is stopped
    Serve(Serve),
    /// Measure this machine's client error, and the highest rate it holds, against the built-in reference server
    Calibrate(Calibrate),
    /// Print a run's tables again, also of a run that was killed
    Report(Report),
    /// Compare two runs, or engines of a run: by how much they differ, and whether it is more than chance
    Compare(Compare),
    /// Explain a metric: definition, unit, and how other tools read it
    Explain {
        /// The metric, e.g. ttft; without it, all are listed
        metric: Option<String>,
    },
    /// List the models that have a name, or fetch one
    Models {
        /// What to do with a model; without it, all are listed.
        #[command(subcommand)]
        action: Option<ModelAction>,
    },
}

/// What can be done with an engine.
#[derive(Debug, Clone, Subcommand)]
pub enum EngineAction {
    /// List all engines
    List {
        /// What to print
        #[arg(long, value_enum, default_value = "table")]
        format: TableFormat,
    },
    /// Build or install an engine
    Install {
        /// The engine
        name: String,
        /// Convert this model for it too, which its first use would do
        #[arg(long, value_name = "MODEL")]
        model: Option<String>,
    },
    /// Start an engine, ask it for a few answers, tell what it does with what it is asked, and stop it
    Check {
        /// The engine
        name: String,
        /// Model: a name of `loadtest models`, a path, or hf:owner/repo[/file]
        #[arg(long, value_name = "MODEL")]
        model: Option<String>,
        /// The line that starts the engine `command`, e.g. 'my-server --port {port} --model {model}'
        #[arg(long, value_name = "LINE")]
        command: Option<String>,
        /// The address of an engine that runs already
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        /// Give up on an engine whose model has not answered this long after its start; default: its recipe's
        #[arg(long, value_name = "TIME", value_parser = duration::parse)]
        load_timeout: Option<Duration>,
        /// What to print
        #[arg(long, value_enum, default_value = "table")]
        format: TableFormat,
    },
}

/// What can be done with a model.
#[derive(Debug, Clone, Subcommand)]
pub enum ModelAction {
    /// List the models that have a name
    List,
    /// Download a model into the cache and verify it
    Fetch {
        /// A name, or hf:owner/repo[/file]
        name: String,
    },
}

/// An earlier run, shown again.
#[derive(Debug, Clone, Args)]
pub struct Report {
    /// The run's folder, or `last`
    pub run: PathBuf,
    /// What to print
    #[arg(long, value_enum, default_value = "table")]
    pub format: crate::profile::Format,
    /// Write it to this file instead of printing it
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Open the run's report.html in the browser
    #[arg(long)]
    pub open: bool,
    /// Write the results in these forms too, into the run's folder `export/`
    #[arg(long, value_enum, value_name = "FORM,...", value_delimiter = ',')]
    pub export: Vec<crate::profile::Export>,
    /// What an hour of the server costs, in your currency: adds the cost of a million output tokens
    #[arg(long, value_name = "PRICE", value_parser = crate::profile::price)]
    pub price_per_hour: Option<f64>,
    /// The engine that the others' costs are held against
    #[arg(long, value_name = "ENGINE", requires = "price_per_hour")]
    pub baseline: Option<String>,
}

/// Sequences that `loadtest serve` has room for when the user does not say.
pub const SERVED_PARALLEL: u32 = 16;

/// Tokens of context for each of them when the user does not say.
pub const SERVED_CONTEXT: u32 = 4096;

/// A server to be run in the foreground.
#[derive(Debug, Clone, Args)]
#[command(
    mut_arg("parallel", |arg| arg.help(format!(
        "Sequences that the engine runs at once; default: {SERVED_PARALLEL}"
    ))),
    mut_arg("context", |arg| arg.help(format!("Tokens of context for each sequence; default: {SERVED_CONTEXT}"))),
)]
pub struct Serve {
    /// The engine
    pub engine: String,
    /// Model: a name of `loadtest models`, a path, or hf:owner/repo[/file]
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// IPv4 address to listen on; 0.0.0.0 is all of this machine's
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = host)]
    pub host: Ipv4Addr,
    /// Port to listen on; 0 is a free one
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// How the engine is started.
    #[command(flatten)]
    pub server: crate::profile::ServerSettings,
}

/// A comparison of runs.
#[derive(Debug, Clone, Args)]
pub struct Compare {
    /// Baseline and candidate: a run's folder, its name under results/, last or last~1, each with :ENGINE where it had
    /// several. One run alone: its engines
    #[arg(required = true, num_args = 1..=2, value_name = "RUN")]
    pub runs: Vec<String>,
    /// Compare only these engines; of one run, the first is the baseline
    #[arg(long, alias = "engines", value_name = "NAME,...", value_delimiter = ',')]
    pub engine: Vec<String>,
    /// Compare only these metrics, e.g. output_tps,ttft_p99: fewer comparisons see smaller differences
    #[arg(long, value_name = "METRIC,...", value_delimiter = ',')]
    pub metric: Vec<String>,
    /// Exit with 3 on a real change beyond this, e.g. "ttft_p99 > +5%" or "output_tps < -3%"; may be given again
    #[arg(long, value_name = "EXPRESSION")]
    pub fail_on: Vec<String>,
    /// Compare runs of different loads, models, machines or versions too
    #[arg(long, alias = "force")]
    pub anyway: bool,
    /// What to print
    #[arg(long, value_enum, default_value = "table")]
    pub format: CompareFormat,
}

/// The form of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum CompareFormat {
    /// Tables for a terminal
    Table,
    /// JSON
    Json,
    /// Tables for a pull request
    Markdown,
    /// JUnit XML: a test case for each gate
    Junit,
}

/// A calibration of the client.
#[derive(Debug, Clone, Args)]
pub struct Calibrate {
    /// Concurrent streams
    #[arg(long, aliases = ["concurrency", "max-concurrency"], value_name = "N", default_value_t = 64,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub users: u32,
    /// Output events per second of each stream
    #[arg(long, value_name = "N", default_value = "100", value_parser = events_per_second)]
    pub rate: f64,
    /// How long to measure, e.g. 10s
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = calibration_time)]
    pub duration: Duration,
    /// Words of each prompt
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub isl: u32,
    /// Bytes of text in each output event, at least; 0 is a word
    #[arg(long, value_name = "BYTES", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub payload: u32,
    /// Don't search for the highest rate
    #[arg(long)]
    pub no_search: bool,
    /// Stall the client's threads on purpose, e.g. 30ms/100ms: 30 ms out of every 100
    #[arg(long, value_name = "TIME/TIME", hide = true, value_parser = stall)]
    pub stall: Option<(Duration, Duration)>,
    /// What to print
    #[arg(long, value_enum, default_value = "table")]
    pub format: TableFormat,
}

/// The form of what a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TableFormat {
    /// Words and tables
    Table,
    /// JSON
    Json,
}

fn host(text: &str) -> Result<Ipv4Addr, String> {
    match text {
        "localhost" => Ok(Ipv4Addr::LOCALHOST),
        _ => text
            .parse()
            .map_err(|_| "must be an IPv4 address, e.g. 127.0.0.1 or 0.0.0.0".into()),
    }
}

fn events_per_second(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (1.0..=20_000.0).contains(rate));
    rate.ok_or_else(|| "must be a number of events per second from 1 to 20000".into())
}

fn calibration_time(text: &str) -> Result<Duration, String> {
    let time = duration::parse(text)?;
    let allowed = Duration::from_millis(100)..=Duration::from_secs(120);
    let message = "must be from 100ms to 2m: every event of it is kept in memory";
    allowed
        .contains(&time)
        .then_some(time)
        .ok_or_else(|| message.into())
}

fn stall(text: &str) -> Result<(Duration, Duration), String> {
    let (blocked, every) = text
        .split_once('/')
        .ok_or("write how long and how often: `30ms/100ms`")?;
    let (blocked, every) = (duration::parse(blocked)?, duration::parse(every)?);
    (blocked < every)
        .then_some((blocked, every))
        .ok_or_else(|| format!("`{text}` leaves no time to read: the first must be the shorter"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_is_as_it_was_read_last() {
        let mut command = Cli::command().term_width(110);
        insta::assert_snapshot!("help", command.render_help());
        for name in [
            "engines",
            "serve",
            "calibrate",
            "report",
            "compare",
            "explain",
            "models",
        ] {
            let subcommand = command.find_subcommand_mut(name).expect("it is in the enum");
            insta::assert_snapshot!(
                format!("help_{name}"),
                subcommand.clone().term_width(110).render_help()
            );
        }
    }

    #[test]
    fn names_of_other_tools_are_known() {
        let ours = parse("loadtest --users 8 --num-prompts 5 --engine a,b")
            .unwrap()
            .run
            .settings;
        let theirs = parse("loadtest --max-concurrency 8 --request-count 5 --engines a,b")
            .unwrap()
            .run
            .settings;
        assert_eq!(ours, theirs);
        assert_eq!(
            parse("loadtest --concurrency 8").unwrap().run.settings.load.users,
            ours.load.users
        );
    }

    #[test]
    fn a_key_never_shows() {
        let cli = parse("loadtest --api-key sesame --header Cookie:sesame").unwrap();
        assert_eq!(cli.run.api_key.as_ref().map(Secret::reveal), Some("sesame"));
        assert!(!format!("{cli:?}").contains("sesame"));
    }

    #[test]
    fn bad_flags_say_what_is_right() {
        let lines = [
            "loadtest --users 100..10",
            "loadtest --users 0",
            "loadtest --duration 30",
            "loadtest --usres 10",
            "loadtest --request-rate 5",
            "loadtest --isl many",
            "loadtest --goodput tftt:500",
            "loadtest --format yaml",
            "loadtest report",
            "loadtest compare",
            "loadtest compare a b c",
            "loadtest --users 4 engines",
            "loadtest calibrate --rate 0",
            "loadtest calibrate --duration 10m",
            "loadtest calibrate --stall 100ms/30ms",
            "loadtest engines --format json check candle",
        ];
        let errors: Vec<String> = lines
            .iter()
            .map(|line| parse(line).unwrap_err().to_string())
            .collect();
        insta::assert_snapshot!(errors.join("\n----\n"));
        assert_eq!(parse(lines[0]).unwrap_err().exit_code(), 2);
    }
}
