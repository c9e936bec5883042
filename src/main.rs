//! The `loadtest` program: parse, run, and an exit code.

use std::process::ExitCode;

use clap::Parser;
use loadtest::cli::{Cli, Command};
use loadtest::run::{self, Ending, Interrupt, Usage};
use loadtest::{calibrate, commands, engine::guard};

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(first) if first == guard::SUBCOMMAND => return guard::main(args),
        // The server that calibrations are made against is a process of its own, and there wherever `loadtest` is.
        Some(first) if first == calibrate::SERVER_SUBCOMMAND => {
            return loadtest_shell::reference::main(std::iter::once(first).chain(args));
        }
        _ => {}
    }
    let cli = Cli::parse();
    let interrupt = Interrupt::install();
    let done = match &cli.command {
        None => run::run(&cli.run, &interrupt),
        Some(Command::Engines { action, format }) => commands::engines(action.as_ref(), *format, &interrupt),
        Some(Command::Calibrate(calibrate)) => commands::calibrate(calibrate, &interrupt),
        Some(Command::Serve(serve)) => commands::serve(serve, &interrupt),
        Some(Command::Report(report)) => commands::report(report),
        Some(Command::Compare(compare)) => commands::compare(compare),
        Some(Command::Explain { metric }) => commands::explain(metric.as_deref()),
        Some(Command::Models { action }) => commands::models(action.as_ref(), &interrupt),
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
