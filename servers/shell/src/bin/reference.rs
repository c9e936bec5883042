//! The `reference` server as a program of its own; `loadtest` has it built in.

use std::process::ExitCode;

fn main() -> ExitCode {
    loadtest_shell::reference::main(std::env::args_os())
}
