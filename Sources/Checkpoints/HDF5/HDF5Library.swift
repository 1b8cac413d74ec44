import CHDF5
import Files
import Synchronization

/// libhdf5, which is not thread-safe as Debian builds it: every call is made by the one thread that holds the lock.
///
/// It is loaded when the first HDF5 file is met.
enum HDF5Library {
  private static let lock = Mutex(false)

  /// Loads the library; whoever opens a file calls it before anything else.
  ///
  /// - Parameter operation: What would be done with the file at `path`.
  static func load(to operation: String, _ path: String) throws(FileError) {
    // The text belongs to the loader and may change with its next call.
    let problem = lock.withLock { _ in mpo_h5_load().map { String(cString: $0) } }
    if let problem {
      throw FileError.io(
        file: path, operation: operation,
        reason: "libhdf5 can't be loaded (\(problem)); install it, or put its path into the variable MPO_HDF5_LIBRARY")
    }
  }

  /// Runs `body` as the only one that calls libhdf5. It must not be nested.
  static func withLock<Result>(_ body: () throws -> Result) rethrows -> Result {
    try lock.withLock { isSetUp in
      if !isSetUp {
        H5open()
        // No filter is loaded from a file.
        H5PLset_loading_state(0)
        isSetUp = true
      }
      // Its error stack (there may be one for each thread) becomes part of our errors and is not printed.
      mpo_h5_silence_errors()
      return try body()
    }
  }

  /// The reason of the call that failed last, in the library's own words; to be called with the lock held.
  static func takeReason() -> String {
    var buffer = [CChar](repeating: 0, count: 256)
    mpo_h5_take_error(&buffer)
    let bytes = buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
    return bytes.isEmpty ? "no reason given" : String(decoding: bytes, as: UTF8.self)
  }
}

/// An identifier of libhdf5, released at the end of its life, which the lock must cover.
struct HDF5Identifier: ~Copyable {
  let id: hid_t

  /// Takes over an identifier that a call returned.
  ///
  /// - Parameter failure: Makes the error to throw from the library's reason when the call failed.
  init(_ id: hid_t, orThrow failure: (String) -> any Error) throws {
    guard id >= 0 else { throw failure(HDF5Library.takeReason()) }
    self.id = id
  }

  deinit { H5Idec_ref(id) }
}

/// Throws when a call failed.
func checkHDF5(_ status: some SignedInteger, orThrow failure: (String) -> any Error) throws {
  guard status >= 0 else { throw failure(HDF5Library.takeReason()) }
}
