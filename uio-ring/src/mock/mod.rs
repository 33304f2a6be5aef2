//! The other half of the protocol: a model of the kernel side, for tests, benches and fuzzers.
