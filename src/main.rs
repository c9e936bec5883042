//! The `loadtest` program: parse, run, and an exit code.

use std::process::ExitCode;

use clap::Parser;
use loadtest::cli::{Cli, Command};
use loadtest::run::{self, Ending, Interrupt, Usage};
use loadtest::{commands, engine::guard};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == guard::SUBCOMMAND) {
        return guard::main(args);
    }
    let cli = Cli::parse();
    let interrupt = Interrupt::install();
    let done = match &cli.command {
        None => run::run(&cli.run, &interrupt),
        Some(Command::Engines { action }) => commands::engines(action.as_ref(), &interrupt),
        Some(Command::Serve(serve)) => commands::serve(serve, &interrupt),
        Some(Command::Report { run, format }) => commands::report(run, *format),
        Some(Command::Explain { metric }) => commands::explain(metric.as_deref()),
        Some(Command::Models { action }) => commands::models(action.as_ref()),
    };
    match done {
        Ok(ending) => ExitCode::from(ending.code()),
        Err(_) if interrupt.is_set() => ExitCode::from(Ending::Interrupted.code()),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}
