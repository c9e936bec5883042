//! What an event costs, and how true its arrival is: this client beside a minimal epoll reader, one after the other
//! against the same reference server.
//!
//! `cargo bench --bench capacity -- PATH-OF-REFERENCE [USERS] [EVENTS-A-SECOND] [SECONDS]`

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use loadtest::calibrate::{Seen, Told, compare};
use loadtest::client::Target;
use loadtest::load::{Requests, StepLoad, Stop, run_step};
use loadtest::measure::{Clock, LiveShards, Sink, StepRecord};
use loadtest::profile::{Extent, Length, Step, Timeouts, Warmup};

const TOKENS: u32 = 200;
const RAMP: Duration = Duration::from_millis(1010);

fn body() -> String {
    format!(
        r#"{{"model":"reference","stream":true,"stream_options":{{"include_usage":true}},"max_tokens":{TOKENS},"messages":[{{"role":"user","content":"one two three"}}]}}"#
    )
}

struct Fixed;

impl Requests for Fixed {
    fn body(&self, _: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(body().as_bytes());
    }
}

/// The reference server, killed when dropped.
struct Reference {
    child: Child,
    address: String,
}

impl Reference {
    fn start(path: &str, itl_ms: f64) -> Self {
        let mut child = Command::new(path)
            .args(["--port", "0", "--ttft-ms", "20", "--itl-ms", &itl_ms.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the path of the reference server");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        let mut lines = BufReader::new(stdout);
        let address = loop {
            line.clear();
            assert!(
                lines.read_line(&mut line).expect("it speaks") > 0,
                "the server told no address"
            );
            if let Some(at) = line.find("127.0.0.1:") {
                break line[at..]
                    .split(|c: char| c != '.' && c != ':' && !c.is_ascii_digit())
                    .next()
                    .unwrap_or("")
                    .to_owned();
            }
        };
        Self { child, address }
    }

    /// What the server tells at `path`.
    fn get(&self, path: &str) -> Vec<u8> {
        let mut tcp = TcpStream::connect(&self.address).expect("it listens");
        write!(tcp, "GET {path} HTTP/1.0\r\nhost: x\r\n\r\n").expect("connected");
        let mut answer = Vec::new();
        tcp.read_to_end(&mut answer).expect("an answer");
        let head = memchr::memmem::find(&answer, b"\r\n\r\n").expect("a head");
        answer.split_off(head + 4)
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn thread_cpu() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Reads `users` streams with one thread that only counts events. Returns events and CPU time.
fn minimal_reader(address: &str, users: usize, seconds: f64) -> (u64, Duration) {
    let body = body();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    // SAFETY: plain system calls on descriptors that live to the end of this function.
    let epoll = unsafe { libc::epoll_create1(0) };
    let mut streams = Vec::new();
    for index in 0..users {
        let mut tcp = TcpStream::connect(address).expect("it listens");
        tcp.set_nodelay(true).expect("a TCP socket");
        tcp.write_all(request.as_bytes()).expect("connected");
        tcp.set_nonblocking(true).expect("a TCP socket");
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLET) as u32,
            u64: index as u64,
        };
        // SAFETY: as above.
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, tcp.as_raw_fd(), &mut event) };
        streams.push(tcp);
        // Spread as the load's users are: streams in step would be read several at one wake-up.
        std::thread::sleep(RAMP / users as u32);
    }
    let mut buffer = vec![0; 65_536];
    let mut ready = [libc::epoll_event { events: 0, u64: 0 }; 256];
    let (begun, cpu) = (Instant::now(), thread_cpu());
    let mut events = 0;
    while begun.elapsed().as_secs_f64() < seconds {
        // SAFETY: `ready` has room for 256.
        let count = unsafe { libc::epoll_wait(epoll, ready.as_mut_ptr(), 256, 100) };
        for event in &ready[..count.max(0) as usize] {
            let tcp = &mut streams[event.u64 as usize];
            while let Ok(bytes) = tcp.read(&mut buffer) {
                events += memchr::memmem::find_iter(&buffer[..bytes], b"\"content\":\"").count() as u64;
                if buffer[..bytes].ends_with(b"0\r\n\r\n") {
                    tcp.write_all(request.as_bytes()).expect("connected");
                }
                if bytes < buffer.len() {
                    break;
                }
            }
        }
    }
    // SAFETY: the descriptor is ours.
    unsafe { libc::close(epoll) };
    (events, thread_cpu() - cpu)
}

fn step(address: &str, users: u32, seconds: f64, clock: Clock) -> (StepRecord, Vec<Seen>) {
    let (sink, seen) = Sink::with_events(1 << 16);
    let target =
        Target::new(&format!("http://{address}"), "/v1/chat/completions", None, &[]).expect("an address");
    let fixed = |mean| Length { mean, stddev: 0 };
    let load = StepLoad {
        cpus: None,
        target: Arc::new(target),
        engine: 0,
        step: 0,
        shape: Step {
            users,
            isl: fixed(3),
            osl: fixed(TOKENS),
        },
        ramp: RAMP,
        warmup: Warmup {
            duration: Duration::from_secs(1),
            requests_per_user: 1,
        },
        extent: Extent {
            duration: Some(Duration::from_secs_f64(seconds)),
            requests: None,
        },
        drain: Duration::from_secs(60),
        backoff: Duration::from_secs(1),
        timeouts: Timeouts {
            connect: Duration::from_secs(10),
            first_token: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            total: Duration::from_secs(300),
        },
        objectives: None,
        requests: Arc::new(Fixed),
        first_id: 0,
        shards: 1,
        clock,
        stop: Stop::default(),
        sink,
        live: Arc::new(LiveShards::new(1)),
    };
    let record = run_step(load, &mut |_| {});
    let seen = seen.into_iter().map(Seen::from).collect();
    (record.expect("the load runs"), seen)
}

/// How far the client is from the server's own word.
fn truth(reference: &Reference, seen: &[Seen], record: &StepRecord, clock: Clock) {
    let told = Told::read(&reference.get("/reference/log")).expect("the server's log");
    let truth = compare(seen, &told, clock, record.window);
    for (name, error) in [
        ("arrival, client's - server's write", truth.arrival),
        ("ITL,  client's - server's", truth.itl),
        ("TTFT, client's - server's", truth.ttft),
    ] {
        let ms = |value: Option<f64>| value.unwrap_or(f64::NAN);
        println!(
            "{name}: n {} p50 {:.4} p99 {:.4} max {:.4} ms",
            error.n,
            ms(error.p50),
            ms(error.p99),
            ms(error.max)
        );
    }
    println!(
        "of {} events {} lost, {} doubled; {} requests failed",
        truth.events, truth.lost, truth.doubled, truth.failed
    );
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(path) = arguments.next() else {
        eprintln!("name the reference server's binary: cargo bench --bench capacity -- PATH");
        return;
    };
    let mut number = |default: f64| {
        arguments
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (users, rate, seconds) = (number(64.0) as u32, number(100.0), number(10.0));
    let reference = Reference::start(&path, 1000.0 / rate);
    let (events, cpu) = minimal_reader(&reference.address, users as usize, seconds);
    let floor = cpu.as_secs_f64() * 1e6 / events as f64;
    println!("minimal epoll reader: {events} events, {floor:.2} us CPU an event");
    drop(reference);

    let reference = Reference::start(&path, 1000.0 / rate);
    let clock = Clock::start();
    let (record, seen) = step(&reference.address, users, seconds, clock);
    let cost = record.client_cpu_ns as f64 / 1e3 / record.output_tokens_in_window;
    println!(
        "loadtest: {:.0} events in the window, {cost:.2} us CPU an event, {:.2} times the minimal reader",
        record.output_tokens_in_window,
        cost / floor
    );
    println!(
        "outcomes {:?}, goose {:?}, server {}",
        record.all_outcomes,
        record.goose_requests,
        String::from_utf8_lossy(&reference.get("/reference/totals"))
    );
    println!(
        "events {}, tokens {}, kernel stamps {}",
        record.all_events, record.all_output_tokens, record.kernel_stamps
    );
    let ms = |ns: u64| ns as f64 / 1e6;
    println!(
        "read lag p50 {:.3} p99 {:.3} ms; send lag p99 {:.3} ms; TTFT p50 {:.3} p99 {:.3}; ITL p50 {:.3} p99 {:.3} ms",
        ms(record.read_lag.value_at_quantile(0.5)),
        ms(record.read_lag.value_at_quantile(0.99)),
        ms(record.send_lag.value_at_quantile(0.99)),
        ms(record.latencies.ttft.value_at_quantile(0.5)),
        ms(record.latencies.ttft.value_at_quantile(0.99)),
        ms(record.latencies.itl.value_at_quantile(0.5)),
        ms(record.latencies.itl.value_at_quantile(0.99)),
    );
    truth(&reference, &seen, &record, clock);
}
