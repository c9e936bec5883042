//! Serves a model with mistral.rs: its own scheduler, behind its own routes.

mod args;
mod load;
mod routes;

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Parser;
use loadtest_shell::listen;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use args::Args;
use load::Loaded;
use routes::Server;

fn main() -> ExitCode {
    let args = Args::parse();
    if args.die_with_parent {
        listen::die_with_parent();
    }
    if let Some(threads) = args.threads {
        // Both candle and the pools of mistral.rs go by it.
        // SAFETY: no other thread of this process has been started yet.
        unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
    }
    mistralrs_core::initialize_logging();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtest-mistralrs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    // Several workers, as the programs around mistral.rs have: on one alone it would leave out its warm-up.
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(args));
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// Takes the port at once, answers 503 while the model loads, then serves until SIGTERM or SIGINT.
async fn serve(args: Args) -> anyhow::Result<()> {
    let listener = listen::bind(&args.host, args.port).await;
    let listener = listener.with_context(|| format!("cannot listen on {}:{}", args.host, args.port))?;
    let server = Arc::new(Server::default());
    let loaded = in_background(args)?;
    let serving = listen::run(listener, routes::router(Arc::clone(&server)));
    tokio::pin!(serving);
    tokio::select! {
        result = &mut serving => return Ok(result?),
        loaded = loaded => server.ready(loaded.map_err(|_| anyhow!("mistral.rs panicked while it loaded"))??),
    }
    Ok(serving.await?)
}

/// Loads on a thread of its own, so that the server answers meanwhile.
fn in_background(args: Args) -> anyhow::Result<oneshot::Receiver<anyhow::Result<Loaded>>> {
    let (sender, receiver) = oneshot::channel();
    let runtime = Handle::current();
    thread::Builder::new().name("load".to_owned()).spawn(move || {
        let loaded = runtime.block_on(load::load(&args));
        // Nobody waits when the server was told to stop.
        let _ = sender.send(loaded.with_context(|| format!("cannot load {}", args.model.display())));
    })?;
    Ok(receiver)
}
