//! The scheduler over an engine whose output is known.

use std::sync::Arc;

use futures::StreamExt;
use loadtest_shell::{Event, Finish, Generation, Generator, Input, Limits, Metrics, Request, Scheduler};
use proptest::prelude::*;

use crate::fake::{END, Hold, next_token};

fn limits(parallel: usize, queue: usize) -> Limits {
    Limits {
        parallel,
        context: 256,
        queue,
        prefill_chunk: 16,
    }
}

fn request(prompt: &str, max_tokens: u64) -> Request {
    Request {
        input: Input::Text(prompt.to_owned()),
        max_tokens: Some(max_tokens),
        min_tokens: 0,
        temperature: 0.0,
        top_p: 1.0,
        top_k: None,
        seed: Some(1),
        stop: Vec::new(),
        ignore_eos: false,
        logprobs: None,
    }
}

/// What the engine says after a prompt when it is alone.
fn oracle(prompt: &str, max_tokens: u64) -> String {
    let mut history: Vec<u32> = prompt.bytes().map(u32::from).collect();
    let start = history.len();
    while history.len() < start + max_tokens as usize {
        match next_token(&history) {
            END => break,
            token => history.push(token),
        }
    }
    history[start..]
        .iter()
        .map(|token| *token as u8 as char)
        .collect()
}

/// Text, tokens and finish of a generation.
async fn collect(mut generation: Generation) -> (String, u64, Option<Finish>) {
    let (mut text, mut count) = (String::new(), 0);
    while let Some(event) = generation.events.next().await {
        match event {
            Event::Output {
                text: piece, tokens, ..
            } => {
                text += &piece;
                count += tokens;
            }
            Event::Finish { reason, tokens, .. } => return (text, count + tokens, Some(reason)),
            Event::Failed(_) => return (text, count, None),
        }
    }
    panic!("a generation ended without a last event");
}

/// Runs a test against a scheduler; afterwards, every slot must be free.
fn with_scheduler<T>(limits: Limits, test: impl AsyncFnOnce(Arc<Scheduler>, Hold) -> T) -> T {
    let metrics = Arc::new(Metrics::default());
    let (scheduler, worker, hold) = crate::fake::scheduler(limits, Arc::clone(&metrics));
    let engine = std::thread::spawn(move || worker.run());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let result = runtime.block_on(test(Arc::new(scheduler), hold.clone()));
    drop(runtime);
    engine.join().expect("the engine was driven wrongly");
    assert_eq!(hold.slots_in_use(), 0);
    assert_eq!(
        (
            metrics.running.get(),
            metrics.waiting.get(),
            metrics.kv_bytes.get()
        ),
        (0, 0, 0)
    );
    result
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// 60 cases of up to 60 requests, of which some are cancelled after some events.
    #[test]
    fn every_sequence_gets_its_own_output(
        parallel in 1_usize..9,
        requests in prop::collection::vec(("[a-z]{1,60}", 1_u64..40, prop::option::of(0_usize..20)), 1..60),
    ) {
        let chunk = 16;
        with_scheduler(limits(parallel, 100), async |scheduler, hold| {
            let mut tasks = Vec::new();
            for (prompt, max_tokens, cancel_after) in requests {
                let mut generation = scheduler.submit(request(&prompt, max_tokens)).await.unwrap();
                tasks.push(tokio::spawn(async move {
                    match cancel_after {
                        None => assert_eq!(collect(generation).await.0, oracle(&prompt, max_tokens)),
                        Some(events) => {
                            for _ in 0..events {
                                if generation.events.next().await.is_none() {
                                    break;
                                }
                            }
                        }
                    }
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
            assert!(hold.look(|seen| seen.most_rows) <= parallel + chunk);
        });
    }
}

#[test]
fn thousands_of_cancels_leak_no_slot() {
    with_scheduler(limits(8, 10_000), async |scheduler, _| {
        for round in 0..20 {
            let mut open = Vec::new();
            for i in 0..200 {
                let generation = scheduler.submit(request("abc", 200)).await.unwrap();
                if (i + round) % 3 > 0 {
                    open.push(generation);
                }
            }
            for generation in open.iter_mut().take(8) {
                generation.events.next().await;
            }
        }
        let (text, ..) = collect(scheduler.submit(request("last", 30)).await.unwrap()).await;
        assert_eq!(text, oracle("last", 30));
    });
}

#[test]
fn first_come_first_served() {
    let started = with_scheduler(limits(1, 100), async |scheduler, hold| {
        hold.close();
        let mut generations = Vec::new();
        for i in 0..20_u8 {
            let prompt = char::from(b'a' + i).to_string();
            generations.push(scheduler.submit(request(&prompt, 3)).await.unwrap());
        }
        hold.open();
        for generation in generations {
            collect(generation).await;
        }
        hold.look(|seen| std::mem::take(&mut seen.started))
    });
    let order: Vec<u32> = started.into_iter().map(|prompt| prompt[0]).collect();
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn a_decoding_stream_waits_for_one_chunk_at_most() {
    with_scheduler(limits(2, 10), async |scheduler, hold| {
        let mut decoding = scheduler.submit(request("a", 100)).await.unwrap();
        decoding.events.next().await;
        hold.close();
        let prompt = "x".repeat(160);
        let prefill = scheduler.submit(request(&prompt, 1)).await.unwrap();
        let before = hold.look(|seen| seen.steps);
        hold.open();
        collect(prefill).await;
        let steps = hold.look(|seen| seen.steps) - before;
        assert!(
            steps >= 160 / 16,
            "a prompt of 160 tokens was read in {steps} steps"
        );
        assert!(hold.look(|seen| seen.most_rows) <= 16 + 1);
    });
}

#[test]
fn a_full_queue_refuses() {
    with_scheduler(limits(2, 3), async |scheduler, hold| {
        hold.close();
        let mut taken = Vec::new();
        for _ in 0..5 {
            taken.push(scheduler.submit(request("a", 2)).await.unwrap());
        }
        let refusal = scheduler.submit(request("a", 2)).await.err().unwrap();
        assert_eq!((refusal.status.as_u16(), refusal.retry_after), (429, Some(1)));
        hold.open();
        for generation in taken {
            collect(generation).await;
        }
    });
}

#[test]
fn more_kv_memory_than_the_machine_has_is_refused() {
    let refused = crate::fake::try_scheduler(limits(1 << 50, 3), Arc::default());
    let message = refused.err().unwrap().to_string();
    assert!(
        message.starts_with("--parallel 1125899906842624 and --context 256 need "),
        "{message}"
    );
}

#[test]
fn a_failed_step_fails_its_sequences_alone() {
    with_scheduler(limits(2, 10), async |scheduler, hold| {
        hold.fail_next();
        let (_, _, finish) = collect(scheduler.submit(request("a", 2)).await.unwrap()).await;
        assert_eq!(finish, None);
        let (text, _, finish) = collect(scheduler.submit(request("b", 4)).await.unwrap()).await;
        assert_eq!((text, finish), (oracle("b", 4), Some(Finish::Length)));
    });
}

#[test]
fn how_outputs_end() {
    with_scheduler(limits(2, 10), async |scheduler, _| {
        let run = async |request: Request| collect(scheduler.submit(request).await.unwrap()).await;
        let echo = request("echo:one two\0", 50);
        assert_eq!(run(echo.clone()).await, ("one two".into(), 8, Some(Finish::Stop)));
        let short = Request {
            max_tokens: Some(3),
            ..echo.clone()
        };
        assert_eq!(run(short).await, ("one".into(), 3, Some(Finish::Length)));
        let stopped = Request {
            stop: vec!["two".into(), "e t".into()],
            ..echo.clone()
        };
        assert_eq!(run(stopped).await, ("on".into(), 5, Some(Finish::Stop)));
        let (_, tokens, finish) = run(Request {
            ignore_eos: true,
            ..echo.clone()
        })
        .await;
        assert_eq!((tokens, finish), (50, Some(Finish::Length)));
        let (_, tokens, _) = run(Request {
            min_tokens: 20,
            ..echo
        })
        .await;
        assert!(tokens >= 20);
    });
}

#[test]
fn a_seed_fixes_the_output() {
    with_scheduler(limits(4, 10), async |scheduler, _| {
        let hot = Request {
            temperature: 2.0,
            seed: Some(7),
            ..request("a", 40)
        };
        let run = async |request: &Request| collect(scheduler.submit(request.clone()).await.unwrap()).await;
        let first = run(&hot).await;
        assert_eq!(first, run(&hot).await);
        assert_ne!(first.0, run(&Request { seed: Some(8), ..hot }).await.0);
    });
}
