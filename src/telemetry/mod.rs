//! What the machine did while the load ran.
