//! tcmu-rbd: serves LIO `user:rbd` backstores from RBD images.

pub mod block;
pub mod rbd;
