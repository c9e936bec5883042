//! The `loadtest` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args
        .next()
        .is_some_and(|first| first == loadtest::engine::guard::SUBCOMMAND)
    {
        return loadtest::engine::guard::main(args);
    }
    ExitCode::SUCCESS
}
