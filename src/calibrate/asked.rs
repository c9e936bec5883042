//! What a calibration asks for.

use super::Load;
use crate::load::Requests;

/// The bodies of a calibration's requests: all the same.
pub(super) struct Asked {
    body: Vec<u8>,
}

impl Asked {
    pub fn new(load: &Load) -> Asked {
        Asked { body: load.body() }
    }
}

impl Requests for Asked {
    fn body(&self, _: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.body);
    }
}
