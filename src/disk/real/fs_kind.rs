//! What a file system may be trusted with, by the number that the kernel calls it.
//!
//! Never here: any access to a file.

/// What a file system may be trusted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FsKind {
    /// Allocated blocks are really there and maps are coherent with reads: a store into a map cannot fail for space.
    Mappable,
    /// Local, but with copy-on-write, compression or an unknown character: written by system calls.
    Local,
    /// On another machine or behind a process: locks may not exclude and syncs may not reach a device.
    Remote(&'static str),
}

/// From the `f_type` of `statfs`, see `linux/magic.h`.
#[cfg(target_os = "linux")]
pub(super) fn of_magic(magic: u32) -> FsKind {
    match magic {
        0xEF53 | 0x5846_5342 | 0x0102_1994 => FsKind::Mappable,
        0x6969 => FsKind::Remote("NFS"),
        0x517B | 0xFF53_4D42 | 0xFE53_4D42 => FsKind::Remote("SMB"),
        0x0102_1997 => FsKind::Remote("9p"),
        0x6573_5546 => FsKind::Remote("FUSE"),
        0x00C3_6400 => FsKind::Remote("Ceph"),
        0x5346_414F | 0x6B41_4653 => FsKind::Remote("AFS"),
        0x7375_7245 => FsKind::Remote("Coda"),
        0x0BD0_0BD0 => FsKind::Remote("Lustre"),
        0x0116_1970 => FsKind::Remote("GFS2"),
        0x7461_636F => FsKind::Remote("OCFS2"),
        0x786F_4256 => FsKind::Remote("VirtualBox shared folder"),
        _ => FsKind::Local,
    }
}

/// The kind of the file system that `stat` describes.
#[cfg(target_os = "linux")]
pub(super) fn of(stat: &rustix::fs::StatFs) -> FsKind {
    // The numbers have 32 bits; the field is signed and its width differs between architectures.
    of_magic((stat.f_type as u64 & 0xFFFF_FFFF) as u32)
}

/// Elsewhere nothing is known, so nothing is mapped and nothing refused.
#[cfg(not(target_os = "linux"))]
pub(super) fn of(_: &rustix::fs::StatFs) -> FsKind {
    FsKind::Local
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_the_allow_list_is_mapped() {
        for magic in [0xEF53, 0x5846_5342, 0x0102_1994] {
            assert_eq!(of_magic(magic), FsKind::Mappable);
        }
        // btrfs, overlayfs, ZFS, F2FS, bcachefs, something new.
        for magic in [0x9123_683E, 0x794C_7630, 0x2FC1_2FC1, 0xF2F5_2010, 0xCA45_1A4E, 0, u32::MAX] {
            assert_eq!(of_magic(magic), FsKind::Local);
        }
        for magic in [0x6969, 0x517B, 0xFF53_4D42, 0xFE53_4D42, 0x0102_1997, 0x6573_5546] {
            assert!(matches!(of_magic(magic), FsKind::Remote(_)), "{magic:x}");
        }
    }
}
