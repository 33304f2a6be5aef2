//! Names under `/sys` that the module gives to its devices.

/// UIO devices of all drivers; those of TCMU have a `name` that starts with [`NAME_PREFIX`].
pub const UIO_CLASS: &str = "/sys/class/uio";
/// First part of a TCMU device's UIO name: `tcm-user/HBA/NAME/CONFIG`.
pub const NAME_PREFIX: &str = "tcm-user/";
/// Backstores, in configfs: `user_HBA/NAME` below it.
pub const CONFIGFS_CORE: &str = "/sys/kernel/config/target/core";
/// Fabrics (loopback, iscsi, ...), in configfs.
pub const CONFIGFS_TARGET: &str = "/sys/kernel/config/target";
/// Module parameters.
pub const MODULE_PARAMETERS: &str = "/sys/module/target_core_user/parameters";
