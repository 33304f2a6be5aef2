//! Backstores and target port groups, on a directory that looks like the kernel's: texts as Linux
//! 6.1 prints them, with the values ceph-iscsi sets.

#![allow(clippy::unwrap_used)]

use handler_rbd::kernel::alua::{AccessState, AccessStatus, AccessType, Member, PortGroup, TargetPort};
use handler_rbd::kernel::configfs::{Backstore, ResetKind};
use handler_rbd::kernel::{DeviceName, Sys};
use std::fs;
use std::path::PathBuf;

const BACKSTORE: &str = "core/user_3/rbd.disk_1";
const IQN: &str = "iqn.2003-01.com.redhat.iscsi-gw:igw";

struct Target(tempfile::TempDir);

impl Target {
    fn new() -> Self {
        Target(tempfile::tempdir().unwrap())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join("sys/kernel/config/target").join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    fn backstore(&self) -> Backstore {
        let name = DeviceName {
            hba: 3,
            name: "rbd.disk_1".into(),
            config: "rbd/rbd/disk_1;osd_op_timeout=30".into(),
        };
        Backstore::new(&Sys::at(self.0.path()), &name)
    }

    fn group(&self, name: &str, id: &str, state: &str, members: &str) {
        let dir = format!("{BACKSTORE}/alua/{name}");
        for (attribute, text) in [
            ("tg_pt_gp_id", id),
            ("alua_access_state", state),
            ("alua_access_status", "None\n"),
            ("alua_access_type", "Implicit\n"),
            ("alua_support_active_nonoptimized", "1\n"),
            ("alua_support_active_optimized", "1\n"),
            ("alua_support_lba_dependent", "0\n"),
            ("alua_support_offline", "0\n"),
            ("alua_support_standby", "1\n"),
            ("alua_support_transitioning", "1\n"),
            ("alua_support_unavailable", "0\n"),
            ("implicit_trans_secs", "45\n"),
            ("preferred", "0\n"),
            ("members", members),
        ] {
            self.write(&format!("{dir}/{attribute}"), text);
        }
    }

    fn portal_group(&self, tag: u16, enable: &str, index: &str) {
        let tpg = format!("iscsi/{IQN}/tpgt_{tag}");
        self.write(&format!("{tpg}/enable"), enable);
        self.write(&format!("{tpg}/lun/lun_0/statistics/scsi_port/indx"), index);
        self.write(&format!("{tpg}/lun/lun_0/statistics/scsi_transport/proto_id"), "5\n");
    }

    fn two_gateways(&self) {
        self.group("default_tg_pt_gp", "0\n", "0\n", "");
        self.group("ao", "1\n", "0\n", &format!("iSCSI/{IQN}/tpgt_1/lun_0\n\0"));
        self.group("ano2", "2\n", "1\n", &format!("iSCSI/{IQN}/tpgt_2/lun_0\n\0"));
        self.portal_group(1, "0\n", "1\n");
        self.portal_group(2, "1\n", "2\n");
    }
}

fn member(tpgt: u16) -> Member {
    Member { fabric: "iscsi".into(), wwn: IQN.into(), tpgt, lun: 0 }
}

#[test]
fn attributes() {
    let target = Target::new();
    for (attribute, text) in [
        ("attrib/dev_size", "67108864\n"),
        ("attrib/hw_block_size", "512\n"),
        ("attrib/hw_max_sectors", "1024\n"),
        ("attrib/cmd_time_out", "0\n"),
        ("attrib/emulate_write_cache", "0\n"),
        ("wwn/vpd_unit_serial", "T10 VPD Unit Serial Number: 6e7b9b6e-2d7c-4e0c-9b0e-000000000001\n"),
    ] {
        target.write(&format!("{BACKSTORE}/{attribute}"), text);
    }
    let backstore = target.backstore();

    assert_eq!(backstore.dir(), target.path(BACKSTORE));
    assert_eq!(backstore.dev_size().unwrap(), 67_108_864);
    assert_eq!(backstore.block_size().unwrap(), 512);
    assert_eq!(backstore.max_sectors().unwrap(), 1024);
    assert_eq!(backstore.cmd_time_out().unwrap(), 0);
    assert!(!backstore.emulate_write_cache().unwrap());
    assert_eq!(backstore.unit_serial().unwrap(), "6e7b9b6e-2d7c-4e0c-9b0e-000000000001");
}

#[test]
fn a_serial_number_may_not_be_set_yet() {
    let target = Target::new();
    target.write(&format!("{BACKSTORE}/wwn/vpd_unit_serial"), "T10 VPD Unit Serial Number: \n");
    assert_eq!(target.backstore().unit_serial().unwrap(), "");
}

#[test]
fn actions() {
    let target = Target::new();
    target.write(&format!("{BACKSTORE}/action/block_dev"), "?");
    target.write(&format!("{BACKSTORE}/action/reset_ring"), "?");
    target.write(&format!("{BACKSTORE}/attrib/tmr_notification"), "0");
    let backstore = target.backstore();

    backstore.block(true).unwrap();
    backstore.reset_ring(ResetKind::Busy).unwrap();
    assert_eq!(target.read(&format!("{BACKSTORE}/action/block_dev")), "1");
    assert_eq!(target.read(&format!("{BACKSTORE}/action/reset_ring")), "1");

    backstore.notify_of_task_management().unwrap();
    assert_eq!(target.read(&format!("{BACKSTORE}/attrib/tmr_notification")), "1");

    backstore.block(false).unwrap();
    backstore.reset_ring(ResetKind::CheckCondition).unwrap();
    assert_eq!(target.read(&format!("{BACKSTORE}/action/block_dev")), "0");
    assert_eq!(target.read(&format!("{BACKSTORE}/action/reset_ring")), "2");
}

#[test]
fn errors_name_the_file() {
    let target = Target::new();
    let backstore = target.backstore();
    let path = |attribute: &str| target.path(BACKSTORE).join(attribute).display().to_string();

    let error = backstore.dev_size().unwrap_err();
    assert!(error.is_missing());
    assert_eq!(error.to_string(), format!("cannot read {}", path("attrib/dev_size")));

    let error = backstore.block(true).unwrap_err();
    assert!(error.is_missing());
    assert_eq!(error.errno(), Some(2));
    assert_eq!(error.to_string(), format!("cannot write \"1\" to {}", path("action/block_dev")));

    target.write(&format!("{BACKSTORE}/attrib/hw_block_size"), "0\n");
    let error = backstore.block_size().unwrap_err();
    assert!(!error.is_missing());
    let wanted = "a power of two that is at least 512";
    let sentence = format!("{} holds \"0\" where {wanted} should stand", path("attrib/hw_block_size"));
    assert_eq!(error.to_string(), sentence);
}

#[test]
fn port_groups_of_ceph_iscsi() {
    let target = Target::new();
    target.two_gateways();
    let group = |name: &str, id, state, member| PortGroup {
        name: name.into(),
        id,
        state,
        supported: 0x87, // T_SUP, S_SUP, AN_SUP, AO_SUP
        status: AccessStatus::None,
        access_type: AccessType::Implicit,
        preferred: false,
        implicit_trans_secs: 45,
        members: vec![member],
    };
    assert_eq!(
        target.backstore().port_groups().unwrap(),
        [
            group("ano2", 2, AccessState::ActiveNonOptimized, member(2)),
            group("ao", 1, AccessState::ActiveOptimized, member(1)),
        ]
    );
}

#[test]
fn the_enabled_port_is_the_local_gateways() {
    let target = Target::new();
    target.two_gateways();
    let backstore = target.backstore();
    let groups = backstore.port_groups().unwrap();

    let port = backstore.enabled_port(&groups).unwrap();

    let want = TargetPort {
        protocol: 5,
        relative_id: 2,
        group_id: 2,
        tpgt: 2,
        wwn: IQN.into(),
        fabric: "iscsi".into(),
    };
    assert_eq!(port, Some(want));
}

#[test]
fn no_port_is_enabled() {
    let target = Target::new();
    target.two_gateways();
    target.write(&format!("iscsi/{IQN}/tpgt_2/enable"), "0\n");
    let backstore = target.backstore();
    let groups = backstore.port_groups().unwrap();
    assert_eq!(backstore.enabled_port(&groups).unwrap(), None);
}

#[test]
fn an_unlinked_lun_is_passed_over() {
    let target = Target::new();
    target.two_gateways();
    fs::remove_dir_all(target.path(&format!("iscsi/{IQN}/tpgt_2/lun/lun_0"))).unwrap();
    let backstore = target.backstore();
    let groups = backstore.port_groups().unwrap();
    assert_eq!(backstore.enabled_port(&groups).unwrap(), None);
}

#[test]
fn a_fabric_without_the_switch_is_on() {
    let target = Target::new();
    target.group("gold", "7\n", "0\n", "loopback/naa.5001405aabbcc001/tpgt_1/lun_4\n\0");
    let lun = "loopback/naa.5001405aabbcc001/tpgt_1/lun/lun_4/statistics";
    target.write(&format!("{lun}/scsi_port/indx"), "3\n");
    target.write(&format!("{lun}/scsi_transport/proto_id"), "6\n");
    let backstore = target.backstore();
    let groups = backstore.port_groups().unwrap();

    let port = backstore.enabled_port(&groups).unwrap().unwrap();

    assert_eq!((port.protocol, port.relative_id, port.group_id), (6, 3, 7));
    assert_eq!(port.fabric, "loopback");
}

#[test]
fn an_old_kernel_does_not_show_the_protocol() {
    let target = Target::new();
    target.two_gateways();
    let statistics = format!("iscsi/{IQN}/tpgt_2/lun/lun_0/statistics");
    fs::remove_file(target.path(&format!("{statistics}/scsi_transport/proto_id"))).unwrap();
    let backstore = target.backstore();
    let groups = backstore.port_groups().unwrap();
    assert_eq!(backstore.enabled_port(&groups).unwrap().unwrap().protocol, 5);
}

#[test]
fn several_members_are_split_at_their_nuls() {
    let target = Target::new();
    let lines = "iSCSI/iqn.a:b/tpgt_1/lun_0\n\0iSCSI/iqn.a:b/tpgt_2/lun_10\n\0";
    target.group("all", "1\n", "0\n", lines);
    let groups = target.backstore().port_groups().unwrap();
    let found: Vec<_> = groups[0].members.iter().map(|m| (m.wwn.as_str(), m.tpgt, m.lun)).collect();
    assert_eq!(found, [("iqn.a:b", 1, 0), ("iqn.a:b", 2, 10)]);
}

#[test]
fn a_group_without_an_id_is_not_ready() {
    let target = Target::new();
    target.two_gateways();
    target.write(&format!("{BACKSTORE}/alua/new/tg_pt_gp_id"), "");
    let groups = target.backstore().port_groups().unwrap();
    assert_eq!(groups.len(), 2);
}

#[test]
fn strange_members_are_an_error() {
    for members in
        ["iSCSI/../tpgt_1/lun_0\n\0", "iSCSI/x/tpgt_1\n\0", "x/y/tpgt_a/lun_0\n\0", "a/b/tpgt_1/lun_1/c\n\0"]
    {
        let target = Target::new();
        target.group("ao", "1\n", "0\n", members);
        let error = target.backstore().port_groups().unwrap_err().to_string();
        assert!(error.contains("alua/ao/members") && error.contains("FABRIC/WWN/tpgt_N/lun_M"), "{error}");
    }
}

#[test]
fn strange_states_are_an_error() {
    let target = Target::new();
    target.group("ao", "1\n", "9\n", "");
    let error = target.backstore().port_groups().unwrap_err().to_string();
    assert!(error.ends_with("alua_access_state holds \"9\" where an access state should stand"), "{error}");
}
