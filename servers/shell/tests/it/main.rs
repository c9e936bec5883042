//! The shell from outside: the scheduler, its HTTP side, and the reference server.

mod client;
mod fake;
mod reference;
mod scheduler;
mod server;
