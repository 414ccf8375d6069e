package tributary;

import java.io.IOException;
import java.io.PrintWriter;
import java.lang.management.ManagementFactory;
import java.math.BigDecimal;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.LocalDateTime;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.Schema;
import org.apache.flink.table.api.Table;
import org.apache.flink.table.api.TableDescriptor;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;
import org.apache.flink.types.Row;
import org.apache.flink.types.RowKind;
import org.apache.flink.util.CloseableIterator;

/**
 * One query on a mini-cluster of this process.
 *
 * <pre>
 *   Run check QUERY.sql TABLES.sql FILE EVENTS CORES ROWS.csv     the rows that all changes add up to
 *   Run time  QUERY.sql TABLES.sql FILE EVENTS CORES              one JSON object, after runs that warm the JVM
 * </pre>
 */
final class Run {
  private static final int WARM_UP_RUNS = 2;
  private static final long WARM_UP_EVENTS = 1_000_000;
  private static final String SETTING =
      "heap state, mini-batch of 50000 rows or 2 s, object reuse, no checkpoints, parallelism %d, 6 GB heap, parallel "
          + "GC, blackhole, row file instead of Parquet, %d warm-up runs";

  private final String query;
  private final String tables;
  private final String file;
  private final int cores;

  private Run(String[] arguments) throws IOException {
    query = Files.readString(Path.of(arguments[1]));
    tables = Files.readString(Path.of(arguments[2]));
    file = arguments[3];
    cores = Integer.parseInt(arguments[5]);
  }

  public static void main(String[] arguments) throws Exception {
    Run run = new Run(arguments);
    long events = Long.parseLong(arguments[4]);
    if (arguments[0].equals("check")) {
      run.check(events, Path.of(arguments[6]));
    } else {
      run.time(events);
    }
    System.exit(0);
  }

  private TableEnvironment environment(long events) {
    Configuration configuration = new Configuration();
    configuration.setString("parallelism.default", Integer.toString(cores));
    configuration.setString("pipeline.object-reuse", "true");
    configuration.setString("state.backend.type", "hashmap");
    configuration.setString("table.local-time-zone", "UTC");
    configuration.setString("table.exec.mini-batch.enabled", "true");
    configuration.setString("table.exec.mini-batch.allow-latency", "2 s");
    configuration.setString("table.exec.mini-batch.size", "50000");
    TableEnvironment environment =
        TableEnvironment.create(
            EnvironmentSettings.newInstance().inStreamingMode().withConfiguration(configuration).build());
    String statements = tables.replace("${path}", file).replace("${limit}", Long.toString(events));
    for (String statement : statements.split(";")) {
      if (!statement.isBlank()) {
        environment.executeSql(statement);
      }
    }
    return environment;
  }

  private void time(long events) throws Exception {
    for (int warmUp = 0; warmUp < WARM_UP_RUNS; warmUp++) {
      discard(Math.min(events, WARM_UP_EVENTS));
    }
    System.gc();
    long eventsBefore = EventSource.EVENTS.get();
    long cpuBefore = cpuNanoseconds();
    long milliseconds = discard(events);
    double cpu = (cpuNanoseconds() - cpuBefore) / 1e9;
    System.out.printf(
        "{\"elapsed_seconds\": %.3f, \"cpu_seconds\": %.3f, \"peak_rss_bytes\": %d, \"events\": %d, "
            + "\"setting\": \"%s\"}%n",
        milliseconds / 1e3,
        cpu,
        peakRssBytes(),
        EventSource.EVENTS.get() - eventsBefore,
        String.format(SETTING, cores, WARM_UP_RUNS));
  }

  /** Runs the query into nothing; the job's time from its creation to its end, in milliseconds. */
  private long discard(long events) throws Exception {
    TableEnvironment environment = environment(events);
    Table table = environment.sqlQuery(query);
    Schema schema =
        Schema.newBuilder().fromRowDataType(table.getResolvedSchema().toPhysicalRowDataType()).build();
    TableResult result =
        table.executeInsert(TableDescriptor.forConnector("blackhole").schema(schema).build());
    return result.getJobClient().orElseThrow().getJobExecutionResult().get().getNetRuntime();
  }

  private void check(long events, Path rows) throws Exception {
    Map<Row, Long> view = new HashMap<>();
    try (CloseableIterator<Row> changes = environment(events).executeSql(query).collect()) {
      while (changes.hasNext()) {
        Row row = changes.next();
        boolean added = row.getKind() == RowKind.INSERT || row.getKind() == RowKind.UPDATE_AFTER;
        row.setKind(RowKind.INSERT);
        view.merge(row, added ? 1L : -1L, Long::sum);
      }
    }
    try (PrintWriter out = new PrintWriter(Files.newBufferedWriter(rows))) {
      for (Map.Entry<Row, Long> row : view.entrySet()) {
        if (row.getValue() < 0) {
          throw new IllegalStateException("more rows taken away than were there: " + row.getKey());
        }
        for (long copy = 0; copy < row.getValue(); copy++) {
          out.println(csv(row.getKey()));
        }
      }
    }
    System.out.println("{}");
  }

  private static String csv(Row row) {
    List<String> values = new ArrayList<>();
    for (int at = 0; at < row.getArity(); at++) {
      Object value = row.getField(at);
      values.add(value == null ? "" : '"' + text(value).replace("\"", "\"\"") + '"');
    }
    return String.join(",", values);
  }

  private static String text(Object value) {
    if (value instanceof BigDecimal number) {
      return number.toPlainString();
    }
    return value instanceof LocalDateTime time ? time.toString().replace('T', ' ') : value.toString();
  }

  private static long cpuNanoseconds() {
    return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean())
        .getProcessCpuTime();
  }

  private static long peakRssBytes() throws IOException {
    for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
      if (line.startsWith("VmHWM:")) {
        return Long.parseLong(line.replaceAll("\\D", "")) * 1024;
      }
    }
    return 0;
  }
}
