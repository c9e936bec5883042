//! Serves Llama-family and Gemma 3 models, computed by candle, over OpenAI's API.

use loadtest_candle::engine::{Candle, Options};
use loadtest_shell::{Engine, serve};
use std::process::ExitCode;

fn main() -> ExitCode {
    serve("loadtest-candle", |args| {
        let engine = Candle::load(&args.model, &args.served_name(), Options::new(args)?)?;
        Ok(Box::new(engine) as Box<dyn Engine>)
    })
}
