//! What to do: a validated [`Profile`], its TOML file, ranges such as `10..100`, and the prompts (seeded, pure).

use std::time::Duration;

use serde::Serialize;

/// A length in tokens: fixed, or drawn from a normal distribution and cut at 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Length {
    /// Mean, in tokens.
    pub mean: u32,
    /// Standard deviation, in tokens; 0 for a fixed length.
    pub stddev: u32,
}

/// How users warm up before the window opens. Both bounds must be met.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Warmup {
    /// At least this long after the last user started.
    pub duration: Duration,
    /// At least so many requests ended, per user.
    pub requests_per_user: u32,
}

/// How long to wait for a server, stage by stage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Timeouts {
    /// For DNS, TCP and TLS.
    pub connect: Duration,
    /// From `sent` to the first output.
    pub first_token: Duration,
    /// Between two arrivals after the first output.
    pub stall: Duration,
    /// For the whole request.
    pub total: Duration,
}

/// One step of the load: so many users, sending requests of one shape.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Concurrent users.
    pub users: u32,
    /// Input sequence length wanted.
    pub isl: Length,
    /// Output sequence length asked for.
    pub osl: Length,
}

/// When a step is over: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Extent {
    /// The window's length.
    pub duration: Option<Duration>,
    /// Requests sent inside the window.
    pub requests: Option<u64>,
}
