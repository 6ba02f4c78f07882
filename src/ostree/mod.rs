//! OSTree: repositories, boot entries, accounts and tmpfiles, as far as they are formats; what runs programs is in
//! [`build`](crate::build).

pub mod accounts;
pub mod acl;
pub mod entry;
mod gvariant;
pub mod object;
pub mod release;
pub mod repository;
pub mod tmpfiles;

pub use repository::Repository;
