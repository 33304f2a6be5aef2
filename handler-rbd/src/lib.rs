//! tcmu-rbd: serves LIO `user:rbd` backstores from RBD images.

pub mod cfgstring;
pub mod kernel;
pub mod service;
