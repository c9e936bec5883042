//! The least that a reader of many streams can do: wait with epoll, read, count events, ask again.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use loadtest::calibrate::Load;

/// What the reader did.
pub struct Counted {
    pub cpu_us_per_event: f64,
    pub events_per_s: f64,
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

/// Reads the streams of `load` with this thread.
pub fn read(base_url: &str, load: &Load) -> Counted {
    let address = base_url.trim_start_matches("http://").trim_end_matches('/');
    let body = load.body();
    let mut request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(&body);
    // SAFETY: plain system calls on descriptors that live to the end of this function.
    let epoll = unsafe { libc::epoll_create1(0) };
    let mut streams = Vec::new();
    for index in 0..load.users {
        let mut tcp = TcpStream::connect(address).expect("it listens");
        tcp.set_nodelay(true).expect("a TCP socket");
        tcp.write_all(&request).expect("connected");
        tcp.set_nonblocking(true).expect("a TCP socket");
        let mut event = libc::epoll_event {
            events: (libc::EPOLLIN | libc::EPOLLET) as u32,
            u64: u64::from(index),
        };
        // SAFETY: as above.
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, tcp.as_raw_fd(), &mut event) };
        streams.push(tcp);
        // Spread as the load's users are: streams in step would be read several at one wake-up.
        std::thread::sleep(Duration::from_millis(1010) / load.users);
    }
    let mut buffer = vec![0; 65_536];
    let mut ready = [libc::epoll_event { events: 0, u64: 0 }; 256];
    let (mut begun, mut cpu) = (Instant::now(), thread_cpu());
    let mut events = 0;
    let mut warm = false;
    loop {
        // The first second is not counted: what came while the streams were opened is read in it.
        if !warm && begun.elapsed() > Duration::from_secs(1) {
            (warm, begun, cpu, events) = (true, Instant::now(), thread_cpu(), 0);
        }
        if warm && begun.elapsed() > load.duration {
            break;
        }
        // SAFETY: `ready` has room for 256.
        let count = unsafe { libc::epoll_wait(epoll, ready.as_mut_ptr(), 256, 100) };
        for event in &ready[..count.max(0) as usize] {
            let tcp = &mut streams[event.u64 as usize];
            while let Ok(bytes) = tcp.read(&mut buffer) {
                events += memchr::memmem::find_iter(&buffer[..bytes], b"\"content\":\"").count();
                if buffer[..bytes].ends_with(b"0\r\n\r\n") {
                    tcp.write_all(&request).expect("connected");
                }
                if bytes < buffer.len() {
                    break;
                }
            }
        }
    }
    let (took, cpu) = (begun.elapsed(), thread_cpu() - cpu);
    // SAFETY: the descriptor is ours.
    unsafe { libc::close(epoll) };
    Counted {
        cpu_us_per_event: cpu.as_secs_f64() * 1e6 / events as f64,
        events_per_s: events as f64 / took.as_secs_f64(),
    }
}
