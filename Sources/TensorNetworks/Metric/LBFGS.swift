import LinearAlgebra

/// Preconditioned limited-memory BFGS with a backtracking line search (Nocedal & Wright, *Numerical Optimization*, algorithm 7.5):
/// every accepted step lowers the value.
struct LBFGS<Scalar: LinearAlgebraScalar> {
  /// How many steps are remembered.
  let memory: Int

  private struct Pair {
    let step: [Scalar]
    let gradientChange: [Scalar]
    let product: Double
  }

  /// - Parameter precondition: A positive definite approximation of the inverse Hessian, but for its scale, near the point
  ///   that was evaluated last, times a vector.
  func minimize(
    _ start: [Scalar], options: RefinementOptions, precondition: ([Scalar]) -> [Scalar],
    _ evaluate: ([Scalar]) -> (value: Double, gradient: [Scalar])
  ) -> [Scalar] {
    var point = start
    var (value, gradient) = evaluate(point)
    var pairs: [Pair] = []
    var values = [value]
    for _ in 0..<options.maximumSteps where value > 0 {
      var direction = descent(gradient, pairs, precondition)
      var slope = dot(direction, gradient)
      if !(slope < 0) {
        pairs = []
        direction = descent(gradient, [], precondition)
        slope = dot(direction, gradient)
        guard slope < 0 else { break }
      }
      // Without memory the first length is that of a tenth of the point.
      var length = 1.0
      if pairs.isEmpty {
        length = 0.1 * (dot(point, point) / max(dot(direction, direction), .leastNormalMagnitude)).squareRoot()
      }
      var accepted: (point: [Scalar], value: Double, gradient: [Scalar])?
      for _ in 0..<30 {
        let next = adding(Scalar(length), direction, to: point)
        let (nextValue, nextGradient) = evaluate(next)
        if nextValue.isFinite, nextValue <= value + 1e-4 * length * slope {
          accepted = (next, nextValue, nextGradient)
          break
        }
        // The minimum of the parabola through the value, the slope and the new value, within bounds.
        let parabola = nextValue.isFinite ? -slope * length * length / (2 * (nextValue - value - slope * length)) : 0
        length = min(max(parabola, 0.1 * length), 0.5 * length)
      }
      guard let accepted else { break }
      let step = adding(-1, point, to: accepted.point)
      let change = adding(-1, gradient, to: accepted.gradient)
      let product = dot(step, change)
      if product > 1e-10 * (dot(step, step) * dot(change, change)).squareRoot() {
        pairs.append(Pair(step: step, gradientChange: change, product: product))
        if pairs.count > memory { pairs.removeFirst() }
      }
      (point, value, gradient) = accepted
      values.append(value)
      if values.count > 10, values[values.count - 11] - value < options.tolerance * value { break }
    }
    return point
  }

  /// `−H g`, the two-loop recursion.
  private func descent(
    _ gradient: [Scalar], _ pairs: [Pair], _ precondition: ([Scalar]) -> [Scalar]
  ) -> [Scalar] {
    var result = adding(-2, gradient, to: gradient)
    var weights: [Double] = []
    for pair in pairs.reversed() {
      let weight = dot(pair.step, result) / pair.product
      result = adding(Scalar(-weight), pair.gradientChange, to: result)
      weights.append(weight)
    }
    result = precondition(result)
    if let last = pairs.last {
      let scale = last.product / dot(last.gradientChange, precondition(last.gradientChange))
      result = adding(Scalar(scale - 1), result, to: result)
    }
    for (pair, weight) in zip(pairs, weights.reversed()) {
      let other = dot(pair.gradientChange, result) / pair.product
      result = adding(Scalar(weight - other), pair.step, to: result)
    }
    return result
  }

  /// `y + factor · x`.
  private func adding(_ factor: Scalar, _ x: [Scalar], to y: [Scalar]) -> [Scalar] {
    var result = y
    result.withUnsafeMutableBufferPointer { result in
      x.withUnsafeBufferPointer { x in
        guard let source = x.baseAddress, let target = result.baseAddress else { return }
        Scalar.add(factor, times: source, to: target, count: x.count)
      }
    }
    return result
  }

  private func dot(_ a: [Scalar], _ b: [Scalar]) -> Double {
    a.withUnsafeBufferPointer { a in b.withUnsafeBufferPointer { Scalar.dot(a, $0) } }
  }
}
