//! Disk images, read back by the programs that everybody has for them.

mod layout;
