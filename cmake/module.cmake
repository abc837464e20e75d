# brick_module(name DEPS modules... USES public-libraries... PRIVATE libraries...)
# One static library a folder of src/brick; sources are globbed.
function(brick_module name)
  cmake_parse_arguments(ARG "" "" "DEPS;USES;PRIVATE" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/brick/${name}/*.cc)
  add_library(brick_${name} STATIC ${sources})
  set_target_properties(brick_${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_include_directories(brick_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  list(TRANSFORM ARG_DEPS PREPEND brick_)
  target_link_libraries(brick_${name} PUBLIC ${ARG_DEPS} ${ARG_USES} PRIVATE ${ARG_PRIVATE} brick_flags)
endfunction()

# The `brick` command, left at the top of the build folder.
function(brick_command)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/brick/cli/*.cc)
  add_executable(brick ${sources})
  target_link_libraries(brick PRIVATE brick_pipeline CLI11::CLI11 nlohmann_json::nlohmann_json
                        tomlplusplus::tomlplusplus brick_flags)
  # CLI11 and nlohmann-json are large headers that every command includes: this halves the build.
  target_precompile_headers(brick PRIVATE <CLI/CLI.hpp> <nlohmann/json.hpp> <fmt/format.h>)
endfunction()

# A module's tests link that module alone (and what it publicly uses).
function(brick_test name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*_test.cc)
  if(NOT sources)
    return()
  endif()
  add_executable(${name}_test ${sources})
  target_link_libraries(${name}_test PRIVATE brick_${name} GTest::gtest_main nlohmann_json::nlohmann_json brick_flags)
  target_include_directories(${name}_test PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${name}_test PRIVATE BRICK_TEST_SOURCE_DIR="${PROJECT_SOURCE_DIR}/tests")
  add_test(NAME ${name} COMMAND ${name}_test)
  # Idle OpenMP threads sleep soon, so that tests do not crawl beside other work (cli/main.cc does the same).
  set_tests_properties(${name} PROPERTIES ENVIRONMENT GOMP_SPINCOUNT=1000)
endfunction()
