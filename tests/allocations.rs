//! An event costs no memory, neither parsed nor read from a socket: an allocator that counts sees none of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use loadtest::client::{self, Client, Cut, Shared, Target, offline};
use loadtest::measure::{Clock, LiveShards};
use loadtest::profile::Timeouts;

/// The system's allocator, counting by thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Whether this is the thread that reads the streams.
    static READS: Cell<bool> = const { Cell::new(false) };
}

static WHILE_READING: AtomicU64 = AtomicU64::new(0);

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    if READS.get() {
        WHILE_READING.fetch_add(1, SeqCst);
    }
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps to what the trait asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn parse(reader: &mut offline::Reader, response: &[u8], step: usize) {
    reader.clear();
    for (at_ns, piece) in response.chunks(step).enumerate() {
        reader.read(piece, at_ns as u64).expect("a good response");
    }
}

fn chunk(text: &str) -> String {
    let data = format!(
        "data: {{\"id\":\"x\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
    );
    format!("{:x}\r\n{data}\r\n", data.len())
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const END: &str = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

#[test]
fn a_response_like_the_one_before_it_allocates_nothing() {
    let response = [
        HEAD,
        &(chunk("a") + &chunk(" wörd") + &chunk("\\n")).repeat(100),
        END,
    ]
    .concat();
    for step in [response.len(), 100, 7] {
        let mut reader = offline::Reader::default();
        reader.trace.keep_text();
        parse(&mut reader, response.as_bytes(), step);
        assert_eq!(reader.trace.count(), 300);
        let before = ALLOCATIONS.get();
        parse(&mut reader, response.as_bytes(), step);
        assert_eq!(ALLOCATIONS.get() - before, 0, "in pieces of {step}");
    }
}

/// Answers each request with so many events, each written alone.
fn serve(mut tcp: TcpStream, answers: &[usize]) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    for &events in answers {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n{}") {
            let mut byte = [0];
            tcp.read_exact(&mut byte)?;
            request.extend(byte);
        }
        tcp.write_all(HEAD.as_bytes())?;
        for _ in 0..events {
            tcp.write_all(chunk("a").as_bytes())?;
        }
        tcp.write_all(END.as_bytes())?;
    }
    Ok(())
}

#[tokio::test]
async fn reading_a_thousand_events_allocates_no_more_than_reading_a_few() {
    const ANSWERS: [usize; 3] = [1_100, 100, 1_100];
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let server = std::thread::spawn(move || serve(listener.accept()?.0, &ANSWERS));
    let patience = Duration::from_secs(60);
    let shared = Shared {
        target: Arc::new(Target::new(&url, "/v1/completions", None, &[]).expect("an address")),
        timeouts: Timeouts {
            connect: patience,
            first_token: patience,
            stall: patience,
            total: patience,
        },
        clock: Clock::start(),
        cut: Arc::new(Cut::new(1)),
        window: Arc::default(),
        live: LiveShards::new(1).shard(0),
        keep_text: true,
    };
    let reader = client::Reader::start("read", shared, None, || READS.set(true)).expect("a thread");
    let mut client = Client::new(Arc::new(reader), 0);
    let mut allocated = Vec::new();
    for events in ANSWERS {
        let before = WHILE_READING.load(SeqCst);
        let asked = client.ask(1, b"{}", |_| true).await;
        assert_eq!(asked, Some(Ok(())));
        assert_eq!(client.trace().count() as usize, events);
        allocated.push(WHILE_READING.load(SeqCst) - before);
    }
    // What a request costs: its way to the thread, whatever its length.
    assert!(
        allocated[2] <= allocated[1] + 8,
        "{allocated:?} allocations for {ANSWERS:?} events"
    );
    server.join().expect("no panic").expect("the client reads");
}
