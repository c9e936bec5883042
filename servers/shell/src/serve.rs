//! `main` of a server around an embedded engine.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{CommandFactory, FromArgMatches};
use loadtest_model::ModelText;
use tokio::sync::oneshot;

use crate::routes::{self, Server};
use crate::{Engine, Scheduler, ServeArgs, listen};

/// Serves the engine that `load` makes, until SIGTERM or SIGINT; the arguments are the process's own.
///
/// `name` is the program's, for its help and messages. `load` runs on the thread on which the engine then works,
/// while `/health` answers 503; if it fails, the process ends with code 1 and its message.
pub fn serve(
    name: &'static str,
    load: impl FnOnce(&ServeArgs) -> anyhow::Result<Box<dyn Engine>> + Send + 'static,
) -> ExitCode {
    let matches = ServeArgs::command().name(name).get_matches();
    let args = match ServeArgs::from_arg_matches(&matches) {
        Ok(args) => args,
        Err(error) => error.exit(),
    };
    if args.die_with_parent {
        listen::die_with_parent();
    }
    if let Some(threads) = args.threads {
        // SAFETY: no other thread of this process has been started yet.
        unsafe { std::env::set_var("RAYON_NUM_THREADS", threads.to_string()) };
    }
    match run(args, load) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(
    args: ServeArgs,
    load: impl FnOnce(&ServeArgs) -> anyhow::Result<Box<dyn Engine>> + Send + 'static,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let listener = listen::bind(&args.host, args.port).await;
        let listener = listener.with_context(|| format!("cannot listen on {}:{}", args.host, args.port))?;
        let names = [args.served_name()].into_iter().chain(args.alias.iter().cloned());
        let server = Server::loading(names.collect());
        let (stopped, engine_stopped) = oneshot::channel();
        let engine_server = Arc::clone(&server);
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                let result = work(&args, load, &engine_server);
                // Nobody listens when the server was told to stop.
                let _ = stopped.send(result);
            })?;
        tokio::select! {
            result = listen::run(listener, routes::router(server)) => Ok(result?),
            result = engine_stopped => result.unwrap_or_else(|_| Err(anyhow!("the engine panicked"))),
        }
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

/// The engine's thread: load, then compute until the server is gone.
fn work(
    args: &ServeArgs,
    load: impl FnOnce(&ServeArgs) -> anyhow::Result<Box<dyn Engine>>,
    server: &Server,
) -> anyhow::Result<()> {
    let model = || format!("cannot load {}", args.model.display());
    let text = ModelText::open(&args.model).with_context(model)?;
    let engine = load(args).with_context(model)?;
    let metrics = Arc::clone(&server.metrics);
    let (scheduler, worker) = Scheduler::new(engine, Arc::new(text), args.limits(), metrics)?;
    server.ready(Arc::new(scheduler));
    worker.run();
    Ok(())
}
