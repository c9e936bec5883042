//! Parsing an event costs no memory: an allocator that counts sees none of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use loadtest::client::offline::Reader;

/// The system's allocator, counting by thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
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

fn read(reader: &mut Reader, response: &[u8], step: usize) {
    reader.clear();
    for (at_ns, piece) in response.chunks(step).enumerate() {
        reader.read(piece, at_ns as u64).expect("a good response");
    }
}

#[test]
fn a_response_like_the_one_before_it_allocates_nothing() {
    let chunk = |text: &str| {
        let data = format!(
            "data: {{\"id\":\"x\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
        );
        format!("{:x}\r\n{data}\r\n", data.len())
    };
    let response = [
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        &(chunk("a") + &chunk(" wörd") + &chunk("\\n")).repeat(100),
        "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",
    ]
    .concat();
    for step in [response.len(), 100, 7] {
        let mut reader = Reader::default();
        read(&mut reader, response.as_bytes(), step);
        assert_eq!(reader.trace.count(), 300);
        let before = ALLOCATIONS.get();
        read(&mut reader, response.as_bytes(), step);
        assert_eq!(ALLOCATIONS.get() - before, 0, "in pieces of {step}");
    }
}
