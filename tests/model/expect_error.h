// Expecting an Error whose message says where the fault is.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "brick/base/error.h"

namespace brick::model {

// Runs `body`; it must throw Error with that code and a message that holds `part`.
template <class Body>
void expect_error(ErrorCode code, const std::string& part, Body&& body) {
  try {
    body();
    ADD_FAILURE() << "no error; expected one that says '" << part << "'";
  } catch (const Error& e) {
    EXPECT_EQ(static_cast<int>(e.code()), static_cast<int>(code)) << e.what();
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  }
}

}  // namespace brick::model
