//! `loadtest` finds out how an LLM inference server behaves under load, and how far its own figures can be trusted.
//!
//! Data flows one way: [`profile`] (what to do) → [`load`] (when) → [`client`] (doing it) → [`measure`] (what it
//! meant) → [`report`] (showing it). [`stats`] says how far figures can be trusted, [`compare`] holds run against run.
//! [`engine`] and [`model`] bring up what is tested, [`verify`] asks whether engines give the same answers, [`calibrate`]
//! tests the client itself, [`telemetry`] watches the machine, and [`run`] is the page on which all of it meets.

pub mod calibrate;
pub mod cli;
pub mod client;
pub mod commands;
pub mod compare;
pub mod engine;
pub mod load;
pub mod measure;
pub mod model;
pub mod profile;
pub mod report;
pub mod run;
pub mod stats;
pub mod telemetry;
pub mod verify;
