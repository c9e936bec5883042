//! Doing it: a connection per user, a stamped socket, HTTP/1.1, the SSE splitter, and one request turned into a
//! [`Sample`](crate::measure::Sample).

mod http;
mod sse;

