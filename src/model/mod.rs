//! Which model is served: a name of the registry, a path, or a file on the Hugging Face hub.
