//! A server with a known schedule: it sends words when it was told to, does wrong what it was told to, and keeps
//! record of what it really did. Tests and calibration stand on it.

#[cfg(target_os = "linux")]
mod arrival;
mod clock;
mod faults;
mod log;
mod schedule;
mod script;
mod socket;
mod wire;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use crate::call::{Call, Endpoint};
use crate::frames::Kind;
use crate::routes::{self, Server};
use crate::{Generator, Input, Refusal, listen};
use anyhow::Context;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Parser;
use futures::stream;

use clock::{Clock, now};
use faults::{Fault, Faults};
use log::{Log, Record, Totals, lock};
use schedule::Scheduled;
use script::{Schedule, Script};
use socket::{Mark, Peer, StampedListener};
use wire::{OpenRecord, Wire};

/// Serves a known schedule over OpenAI's API, and tells at /reference/log what it really did
#[derive(Debug, Parser)]
#[command(name = "reference", version, after_help = fault_help(), args_override_self = true)]
struct Args {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Name of the served model; a request may add words to it, as in `reference+itl=5+stall:after=3`
    #[arg(long, default_value = "reference")]
    model_name: String,
    #[command(flatten)]
    schedule: Schedule,
    /// Streams at a time; others wait
    #[arg(long, default_value_t = 100_000)]
    slots: usize,
    /// What to do wrong, as in `http_500:0.1,truncate:after=5:every=10`
    #[arg(long, default_value = "")]
    faults: String,
    /// Seed of jitter and faults
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Seconds until /health says ready
    #[arg(long, default_value = "0", value_parser = seconds)]
    ready_after: f64,
    /// Never say ready
    #[arg(long)]
    never_ready: bool,
    /// Exit with code 1 instead of saying ready
    #[arg(long)]
    die_while_loading: bool,
    /// Threads of the I/O runtime
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Be killed when the parent process dies (Linux)
    #[arg(long)]
    die_with_parent: bool,
}

impl Args {
    fn loads_at_once(&self) -> bool {
        self.ready_after == 0.0 && !self.never_ready && !self.die_while_loading
    }
}

/// A whole or broken number of seconds that a clock can wait.
fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text
        .parse::<f64>()
        .ok()
        .filter(|seconds| (0.0..1e9).contains(seconds));
    seconds.ok_or_else(|| "must be a number of seconds from 0".to_owned())
}

fn fault_help() -> String {
    let mut text = "Faults (KIND[:PROBABILITY][:every=K][:from=N][:after=N][:ms=N]):\n".to_owned();
    for (kind, what) in faults::KINDS {
        text += &format!("  {kind:<13} {what}\n");
    }
    text
}

/// Runs the server until it is told to stop; `args` begin with the program's name, and `--help` tells what follows.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = Args::parse_from(args);
    if args.die_with_parent {
        listen::die_with_parent();
    }
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reference: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> anyhow::Result<()> {
    let faults =
        Faults::parse(&args.faults, args.seed).map_err(|error| anyhow::anyhow!("--faults: {error}"))?;
    let runtime = match args.threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?,
        threads => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()?,
    };
    runtime.block_on(serve(args, Arc::new(faults)))
}

async fn serve(args: Args, faults: Arc<Faults>) -> anyhow::Result<()> {
    let log = Arc::new(Log::default());
    let clock = Clock::start().context("no timer")?;
    let server = Server::loading(vec![args.model_name.clone()]);
    let generator = Arc::new(Scheduled::new(
        clock,
        args.schedule.clone(),
        args.slots.max(1),
        args.seed,
        Arc::clone(&server.metrics),
    ));
    let reference = Arc::new(Reference {
        server,
        generator: Arc::clone(&generator),
        log: Arc::clone(&log),
        faults: Arc::clone(&faults),
        schedule: args.schedule.clone(),
        model: args.model_name.clone(),
    });
    if args.loads_at_once() {
        reference
            .server
            .ready(Arc::clone(&generator) as Arc<dyn Generator>);
    }
    let listener = listen::bind(&args.host, args.port)
        .await
        .with_context(|| format!("cannot listen on {}:{}", args.host, args.port))?;
    let server = Arc::clone(&reference.server);
    let loading = async move {
        tokio::time::sleep(Duration::from_secs_f64(args.ready_after)).await;
        if args.die_while_loading {
            anyhow::bail!("died while loading, as told");
        }
        if !args.never_ready {
            server.ready(generator);
        }
        std::future::pending().await
    };
    let listener = StampedListener {
        listener,
        log,
        faults,
        accepted: 0,
    };
    let (stopping, stop) = tokio::sync::oneshot::channel();
    let service = router(reference).into_make_service_with_connect_info::<Peer>();
    let http = axum::serve(listener, service).with_graceful_shutdown(async move {
        let _ = stop.await;
    });
    tokio::select! {
        result = listen::until_stopped(http.into_future(), stopping) => Ok(result?),
        result = loading => result,
    }
}

/// Everything a request needs.
struct Reference {
    server: Arc<Server>,
    generator: Arc<Scheduled>,
    log: Arc<Log>,
    faults: Arc<Faults>,
    schedule: Schedule,
    model: String,
}

type Shared = State<Arc<Reference>>;
type BodyResult = Result<Bytes, BytesRejection>;

fn router(reference: Arc<Reference>) -> Router {
    let own = Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/reference/log", get(tell_log))
        .route("/reference/totals", get(tell_totals))
        .route("/reference/reset", post(reset))
        .layer(DefaultBodyLimit::max(routes::BODY_LIMIT));
    routes::control(Arc::clone(&reference.server)).merge(own.with_state(reference))
}

async fn chat(
    State(reference): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: BodyResult,
) -> Result<Response, Refusal> {
    reference.answer(Endpoint::Chat, peer, &headers, body).await
}

async fn completions(
    State(reference): Shared,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    body: BodyResult,
) -> Result<Response, Refusal> {
    reference
        .answer(Endpoint::Completions, peer, &headers, body)
        .await
}

impl Reference {
    async fn answer(
        &self,
        endpoint: Endpoint,
        peer: Peer,
        headers: &HeaderMap,
        body: BodyResult,
    ) -> Result<Response, Refusal> {
        let received = peer.last_came();
        self.server.generator()?;
        let mut call = Call::parse(endpoint, &routes::whole_body(body)?, Some("reference"))?;
        let n = self.log.number();
        let mut script = self.script(&call, n)?;
        let fault = script.fault;
        match fault.as_ref().map_or("", |fault| fault.kind) {
            "no_usage" => (call.include_usage, call.continuous_usage) = (false, false),
            "empty" => {
                script.schedule.output = Some(0);
                (call.request.ignore_eos, call.request.min_tokens) = (false, 0);
            }
            _ => {}
        }
        let generation = self.generator.generate(&call.request, &script.schedule, received);
        let record = self.log.open(Record {
            n,
            request_id: headers
                .get("x-request-id")
                .and_then(|id| id.to_str().ok())
                .map(str::to_owned),
            fault: fault.as_ref().map(|fault| fault.name.clone()),
            prompt_tokens: generation.prompt_tokens,
            received,
            ..Record::default()
        });
        let mut open = OpenRecord::new(record, Arc::clone(&self.log));
        if let Some(fault) = &fault
            && let Some(response) = self.instead(fault).await
        {
            open.finish(&peer);
            return response;
        }
        if call.stream {
            let frames = self.server.frames(&call, generation);
            return Ok(routes::raw_event_stream(Wire::new(frames, fault, open, peer)));
        }
        let answer = self.server.collect(&call, generation).await?;
        let tokens = answer.usage.map_or(0, |usage| usage.completion_tokens);
        peer.mark(Mark::Event(Arc::clone(&open.record), Kind::Output, tokens));
        open.finish(&peer);
        Ok(Json(answer).into_response())
    }

    /// The server's flags, overridden by the model's name, the prompt, and the request's own object, in this order.
    fn script(&self, call: &Call, n: u64) -> Result<Script, Refusal> {
        let mut script = Script {
            schedule: self.schedule.clone(),
            fault: self.faults.of_request(n).cloned(),
        };
        let asked = call.model.as_deref().unwrap_or(&self.model);
        let words = script::words_of_model(asked, &self.model)
            .ok_or_else(|| Refusal::unknown_model(asked, &self.model))?;
        for word in words {
            script
                .apply(word)
                .map_err(|error| Refusal::param("model", error))?;
        }
        let prompt = match &call.request.input {
            Input::Text(text) => text,
            Input::Messages(messages) => messages
                .last()
                .and_then(|last| last["content"].as_str())
                .unwrap_or_default(),
            Input::Tokens(_) => "",
        };
        for word in script::words_of_prompt(prompt) {
            script
                .apply(word)
                .map_err(|error| Refusal::param("prompt", error))?;
        }
        if let Some(object) = &call.extension {
            script
                .apply_object(object)
                .map_err(|error| Refusal::param("reference", error))?;
        }
        Ok(script)
    }

    /// What is answered instead of output, if the fault is of that kind.
    async fn instead(&self, fault: &Fault) -> Option<Result<Response, Refusal>> {
        match fault.kind {
            "http_NNN" => {
                let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                Some(Err(Refusal::new(status, None, "scripted error")))
            }
            "html" => Some(Ok(
                Html("<!DOCTYPE html><html><body>It works!</body></html>").into_response()
            )),
            "no_headers" => std::future::pending().await,
            "slow_headers" => {
                self.generator
                    .clock()
                    .sleep_until(now() + fault.ms * 1_000_000)
                    .await;
                None
            }
            "die" if fault.after.is_none() => std::process::abort(),
            _ => None,
        }
    }
}

async fn tell_log(State(reference): Shared, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let since = query
        .as_deref()
        .unwrap_or_default()
        .split('&')
        .find_map(|pair| pair.strip_prefix("since="));
    let since = since.unwrap_or("0").parse();
    let since = since.map_err(|_| Refusal::param("since", "'since' must be the number of a request."))?;
    let lines = reference.log.since(since).into_iter().map(|record| {
        let mut line = serde_json::to_vec(&*lock(&record))?;
        line.push(b'\n');
        serde_json::Result::Ok(Bytes::from(line))
    });
    Ok((
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(stream::iter(lines)),
    )
        .into_response())
}

async fn tell_totals(State(reference): Shared) -> Json<Totals> {
    Json(reference.log.totals())
}

async fn reset(State(reference): Shared) -> StatusCode {
    reference.log.reset();
    StatusCode::NO_CONTENT
}
