//! The generic netlink family of `target_core_user` (`tcmu_genl_family` in the kernel).

use crate::bindings as b;

/// Name of the family.
pub const FAMILY: &str = "TCM-USER";
/// Version of the family; the kernel's events carry it.
pub const VERSION: u8 = 2;
/// The multicast group that events are sent to.
pub const GROUP: &str = "config";

/// Commands (`enum tcmu_genl_cmd`).
#[allow(clippy::cast_possible_truncation)]
pub mod cmd {
    use super::b;
    /// Kernel: a device was configured and waits for `ADDED_DEVICE_DONE`.
    pub const ADDED_DEVICE: u8 = b::TCMU_CMD_ADDED_DEVICE as u8;
    /// Kernel: a device is being removed and waits for `REMOVED_DEVICE_DONE`.
    pub const REMOVED_DEVICE: u8 = b::TCMU_CMD_REMOVED_DEVICE as u8;
    /// Kernel: an attribute is being changed and waits for `RECONFIG_DEVICE_DONE`.
    pub const RECONFIG_DEVICE: u8 = b::TCMU_CMD_RECONFIG_DEVICE as u8;
    /// User: answer to `ADDED_DEVICE`.
    pub const ADDED_DEVICE_DONE: u8 = b::TCMU_CMD_ADDED_DEVICE_DONE as u8;
    /// User: answer to `REMOVED_DEVICE`.
    pub const REMOVED_DEVICE_DONE: u8 = b::TCMU_CMD_REMOVED_DEVICE_DONE as u8;
    /// User: answer to `RECONFIG_DEVICE`.
    pub const RECONFIG_DEVICE_DONE: u8 = b::TCMU_CMD_RECONFIG_DEVICE_DONE as u8;
    /// User: says that this daemon answers events.
    pub const SET_FEATURES: u8 = b::TCMU_CMD_SET_FEATURES as u8;
}

/// Attributes (`enum tcmu_genl_attr`).
#[allow(clippy::cast_possible_truncation)]
pub mod attr {
    use super::b;
    /// String: the UIO device's name, `tcm-user/HBA/NAME/CONFIG`.
    pub const DEVICE: u16 = b::TCMU_ATTR_DEVICE as u16;
    /// `u32`: N of `/dev/uioN`.
    pub const MINOR: u16 = b::TCMU_ATTR_MINOR as u16;
    /// String: the new `dev_config`.
    pub const DEV_CFG: u16 = b::TCMU_ATTR_DEV_CFG as u16;
    /// `u64`: the new size in bytes.
    pub const DEV_SIZE: u16 = b::TCMU_ATTR_DEV_SIZE as u16;
    /// `u8`: the new `emulate_write_cache`.
    pub const WRITECACHE: u16 = b::TCMU_ATTR_WRITECACHE as u16;
    /// `s32`: 0 or a negative errno, in answers.
    pub const CMD_STATUS: u16 = b::TCMU_ATTR_CMD_STATUS as u16;
    /// `u32`: the kernel's handle of the device, to be returned in the answer.
    pub const DEVICE_ID: u16 = b::TCMU_ATTR_DEVICE_ID as u16;
    /// `u8`: 1 if this daemon answers events.
    pub const SUPP_KERN_CMD_REPLY: u16 = b::TCMU_ATTR_SUPP_KERN_CMD_REPLY as u16;
}
