//! Serves Llama-family and Gemma 3 models, computed by burn, over OpenAI's API.

use loadtest_burn::engine::{Burn, Options};
use loadtest_shell::{Engine, serve};
use std::process::ExitCode;

fn main() -> ExitCode {
    serve("loadtest-burn", |args| {
        let engine = Burn::load(&args.model, &args.served_name(), &Options::new(args)?)?;
        Ok(Box::new(engine) as Box<dyn Engine>)
    })
}
