//! A bridge to lm.rs: OpenAI's API on one side, the WebSocket protocol of lm.rs's `backend` on the other.
//!
//! A request flows one way: [`bridge`] checks it and waits for a place, [`pool`] gives it a running `backend`,
//! [`exchange`] turns that one's frames into the shell's events, which the shell renders.

mod backend;
mod bridge;
mod exchange;
mod model;
mod pool;
mod vocabulary;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use loadtest_shell::routes::{self, Server};
use loadtest_shell::{free_memory, listen};

use backend::{Program, Sampling};
use bridge::Bridge;
use model::Model;
use pool::Pool;
use vocabulary::Vocabulary;

/// Serves lm.rs over OpenAI's API
#[derive(Debug, Parser)]
#[command(name = "loadtest-lmrs", version)]
struct Args {
    /// Folder with model.lmrs and tokenizer.bin
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Name to serve it under
    #[arg(long, default_value = "lmrs")]
    model_name: String,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Requests that lm.rs is given at a time, fewer where memory is short; others wait
    #[arg(long, default_value_t = 8, value_name = "N")]
    parallel: usize,
    /// Threads that compute
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The program `backend` of lm.rs
    #[arg(long, env = "LOADTEST_LMRS", value_name = "PROGRAM")]
    backend: PathBuf,
    /// Be killed when the parent process dies (Linux)
    #[arg(long)]
    die_with_parent: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.die_with_parent {
        listen::die_with_parent();
    }
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtest-lmrs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let (model, tokenizer) = (args.model.join("model.lmrs"), args.model.join("tokenizer.bin"));
    let form = Model::read(&model)?;
    let vocabulary = Vocabulary::read(&tokenizer)?;
    let fits = usize::try_from(free_memory() / form.connection_bytes().max(1)).unwrap_or(usize::MAX);
    let parallel = args.parallel.min(fits).max(1);
    if parallel < args.parallel {
        eprintln!("loadtest-lmrs: memory is enough for {parallel} requests at a time");
    }
    let threads = args
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let program = Program {
        path: args.backend,
        model,
        tokenizer,
        threads,
    };
    // One thread is enough for the bridge, and leaves the others to lm.rs.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async {
        let listener = listen::bind(&args.host, args.port).await;
        let listener = listener.with_context(|| format!("cannot listen on {}:{}", args.host, args.port))?;
        let server = Server::loading(vec![args.model_name]);
        let pool = Pool::new(program);
        let loading = async {
            // It is known to work before a request comes, and the API's own sampling is likely to be asked for.
            let usual = Sampling {
                temperature: 1.0,
                top_p: 1.0,
            };
            pool.lease(usual).await?;
            let metrics = Arc::clone(&server.metrics);
            server.ready(Arc::new(Bridge::new(form, vocabulary, pool, parallel, metrics)));
            std::future::pending::<anyhow::Result<()>>().await
        };
        tokio::select! {
            result = listen::run(listener, routes::router(Arc::clone(&server))) => Ok(result?),
            failed = loading => failed,
        }
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}
