import Foundation

/// The folder of the committed fixtures.
package let fixtures =
  URL(fileURLWithPath: #filePath)
  .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path + "/fixtures"
