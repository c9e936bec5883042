//! candle engine
pub mod linear;
pub mod pool;
