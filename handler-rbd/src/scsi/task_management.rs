//! REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS data (SPC-4, the command's clause).
//!
//! The kernel carries task management out before this program hears of it. Its core knows ABORT TASK and
//! LOGICAL UNIT RESET and answers "not supported" to ABORT TASK SET, CLEAR ACA and CLEAR TASK SET, "rejected" to
//! the target resets (target_core_transport.c, `target_tmr_work`).

/// ATS: ABORT TASK.
const ABORT_TASK: u8 = 0x80;
/// LURS: LOGICAL UNIT RESET.
const LOGICAL_UNIT_RESET: u8 = 0x08;

/// Appends the functions, with the extended part (REPD) if asked for.
pub fn supported(extended: bool, out: &mut Vec<u8>) {
    if extended {
        out.extend_from_slice(&[ABORT_TASK | LOGICAL_UNIT_RESET, 0, 0, 12]);
        out.extend_from_slice(&[0; 12]); // no time-outs indicated
    } else {
        out.extend_from_slice(&[ABORT_TASK | LOGICAL_UNIT_RESET, 0, 0, 0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats() {
        let mut out = Vec::new();
        supported(false, &mut out);
        assert_eq!(out, [0x88, 0, 0, 0]);
        out.clear();
        supported(true, &mut out);
        assert_eq!(out, [0x88, 0, 0, 0x0c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
